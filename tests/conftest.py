"""A small run written by a plain script, and the command line as a function."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

# Before numpy and torch are imported: the tests' models are tiny, and threads in each other's way are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRAJCHECK_PLOTS", "0")  # figures are drawn by the tests that are about them

import numpy as np
import pytest
from long_first import pytest_collection_modifyitems, pytest_configure  # noqa: F401
from places import ROOT
from plain_run_files import SHAPES, Outcome, write_plain_step

from trajcheck.files.extent_reader import ExtentReader

gc.disable()  # while modules are imported, which stay: looking for garbage among them is a quarter of the collection
sys.path.append(str(ROOT))  # for benchmarks; behind the installed package, whose inner loop is compiled

# As from a terminal: what a script starts with & or nohup ignores them, and so would all that the tests start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

if os.environ.get("TRAJCHECK_NO_SKIPS"):  # the gate sets it
    from no_skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture(autouse=True)
def what_was_there_is_no_garbage() -> Iterator[None]:
    """Whoever asks the garbage collector what lives, as record() does, sees the objects of this test, and soon."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def quick_figures() -> Iterator[Callable[[pytest.MonkeyPatch], None]]:
    """Figures of few pixels whose panels stay where they are: making room for every word is half of the work, which
    tests that look at names and values alone can do without. What makes them again what users see."""
    if find_spec("matplotlib") is None:
        yield lambda patch: None
        return
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from trajcheck.reports.figures import render

    whole, dpi = ConstrainedLayoutEngine.execute, render.DPI

    def usual(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(ConstrainedLayoutEngine, "execute", whole)
        patch.setattr(render, "DPI", dpi)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
        patch.setattr(render, "DPI", 40)
        yield usual


@pytest.fixture
def whole_figures(quick_figures: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as users see them."""
    quick_figures(monkeypatch)


#: Which modules ask how many rows are evaluated in a second precision too.
TWICE = ("measuring.measured_run", "commands.compare.straight_line", "commands.compare.command")


@pytest.fixture(scope="session", autouse=True)
def one_precision() -> Iterator[None]:
    """No row is evaluated in a second precision, to measure rounding: half the time of a replay of a few steps, which
    tests that look at no resolution can do without."""
    with pytest.MonkeyPatch.context() as patch:
        for module in TWICE:
            patch.setattr(f"trajcheck.{module}.rows_twice", lambda dtype: 0)
        yield


@pytest.fixture(scope="module")
def two_precisions() -> Iterator[None]:
    """A second precision where users have it, for the tests of a module."""
    from trajcheck.replay.plan import rows_twice

    with pytest.MonkeyPatch.context() as patch:
        for module in TWICE:
            patch.setattr(f"trajcheck.{module}.rows_twice", rows_twice)
        yield


@pytest.fixture
def plain_run(tmp_path: Path) -> Path:
    """Ten steps of random walk with gradients, losses and rates; the last iterate alone. float32, two tensors."""
    folder = tmp_path / "run"
    folder.mkdir()
    stream = np.random.default_rng(0)
    x = {name: stream.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for step in range(11):
        tensors = {f"param/{name}": value for name, value in x.items()}
        if step < 10:
            g = {name: stream.normal(size=value.shape).astype(np.float32) for name, value in x.items()}
            tensors |= {f"grad/{name}": value for name, value in g.items()}
            tensors["batch/0"] = stream.normal(size=(4, 3)).astype(np.float32)
            tensors["batch/1"] = stream.normal(size=(4, 2)).astype(np.float32)
            x = {name: value - np.float32(0.1) * g[name] for name, value in x.items()}
            write_plain_step(folder, step, tensors, loss=1.0 / (step + 1), lr=0.1, tau=0.1 * step)
        else:
            write_plain_step(folder, step, tensors, tau=1.0)
    return folder


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is read of tensors from here on, whoever reads it."""
    sizes: list[int] = []

    def count(reader: ExtentReader, total: int) -> None:
        sizes.append(total - reader.__dict__.get("total", 0))
        reader.__dict__["total"] = total

    monkeypatch.setattr(
        ExtentReader, "bytes_read", property(lambda reader: reader.__dict__.get("total", 0), count), raising=False
    )
    return sizes


@pytest.fixture(autouse=True, scope="module")
def handlers_as_before() -> Iterator[None]:
    """Libraries that come with a file, as Ray, leave handlers of their own, which end the process without a word."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if signal.getsignal(signal.SIGTERM) is not before:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def objective_file(tmp_path: Path) -> Path:
    """The linear model of `plain_run` with a squared loss, and objectives that fail each in its own way."""
    path = tmp_path / "objective.py"
    path.write_text(
        """
import torch
from torch import nn

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Module()
        self.layer.weight = nn.Parameter(torch.zeros(3, 2))
        self.layer.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x @ self.layer.weight + self.layer.bias

def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()

def good():
    return Linear(), squared

def raising():
    def loss(model, batch):
        raise KeyError("labels")
    return Linear(), loss

def vector():
    return Linear(), lambda model, batch: (model(batch[0]) - batch[1]).square().mean(0)

def other():
    return nn.Linear(3, 2), squared

def infinite():
    return Linear(), lambda model, batch: squared(model, batch) / 0.0
"""
    )
    return path


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """trajcheck ARGUMENTS... in this process; the working folder is the test's affair."""
    from trajcheck.cli import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["trajcheck", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run

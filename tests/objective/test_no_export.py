"""What cannot be exported is one warning, and the run is recorded."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_runs import record
from loops import batch_of, loss_of, recorded_steps, sgd
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.errors import ObjectiveError, RecorderError
from trajcheck.objective import exporting as objective_export
from trajcheck.objective.loading import load_objective
from trajcheck.recording.recorder import Recorder


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * gradient


OTHER = nn.Linear(4, 3)
TRAINED: list[nn.Linear] = []  # the model that is being trained


@torch.library.custom_op("trajcheck_tests::twice", mutates_args=())
def foreign(x: Tensor) -> Tensor:
    return 2 * x


@foreign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


foreign.register_autograd(lambda ctx, gradient: 2 * gradient)
FAILURES: dict[str, tuple[Any, str]] = {
    "control flow": (lambda model, batch: loss_of(model, batch) * (2 if loss_of(model, batch) > 1 else 1), "data-dep"),
    "function": (lambda model, batch: Doubled.apply(loss_of(model, batch)), "uses Doubled, a torch.autograd.Function"),
    "closure": (lambda model, batch: loss_of(OTHER, batch), "write it as a function of its arguments"),
    "both": (lambda model, batch: loss_of(model, batch) + 0.1 * TRAINED[0].weight.square().sum(), "from elsewhere"),
    "python": (lambda model, batch: loss_of(model, batch) * (1 + random.random()), "random stream"),
    "numpy": (lambda model, batch: loss_of(model, batch) * float(1 + np.random.rand()), "random stream"),
    "vector": (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none"), "shape"),
    "foreign": (lambda model, batch: loss_of(model, (foreign(batch[0]), batch[1])), "operator from outside torch"),
    "foreign gradient": (lambda model, batch: foreign(loss_of(model, batch)), "torch.autograd.Function"),
    "raises": (lambda model, batch: batch["images"], "TypeError"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_be_exported(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """One warning and one line, also under strict=True; the run is recorded, and the streams are as they were."""
    loss_fn, reason = FAILURES[name]
    torch.manual_seed(0)
    TRAINED[:] = [model := nn.Linear(4, 3)]
    optimizer = sgd(model)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    apply = torch.autograd.Function.__dict__["apply"]
    with (
        warnings.catch_warnings(record=True) as caught,
        Recorder(tmp_path, model, optimizer, loss_fn, every=1, strict=True) as recorder,
    ):
        warnings.simplefilter("always")
        for step in range(2):
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            optimizer.step()
            optimizer.zero_grad()
    (warning,) = caught
    assert warning.category is RuntimeWarning and warning.filename == __file__
    assert reason in str(warning.message) and "an objective file" in str(warning.message)
    lines = capfd.readouterr().err.splitlines()
    assert [("could not be exported" in line) for line in lines].count(True) == 1
    assert all(line.startswith("trajcheck: ") for line in lines)
    assert recorded_steps(tmp_path) == [0, 1, 2]
    assert not [path for path in tmp_path.iterdir() if "objective" in path.name]
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert torch.equal(states[2], torch.get_rng_state())
    assert torch.autograd.Function.__dict__["apply"] is apply
    with pytest.raises(ObjectiveError, match="no exported objective"):
        load_objective("run", run=tmp_path)


def test_a_loss_that_is_not_the_observed_one_is_said(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, loss_of, every=1, strict=True, quiet=True) as recorder:
        loss = 2 * loss_of(model, batch_of(0))
        loss.backward()
        with pytest.warns(RuntimeWarning, match="exported program gives the loss"):
            recorder.observe(batch_of(0), loss)
        optimizer.step()


def test_what_is_no_function_is_refused_at_once(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(RecorderError, match="expected a function"):
        Recorder(tmp_path / "run", model, sgd(model), objective="loss")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objective_export, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        record(tmp_path, nn.Linear(4, 3), loss_of, [batch_of(0)])
    assert recorded_steps(tmp_path) == [0, 1]

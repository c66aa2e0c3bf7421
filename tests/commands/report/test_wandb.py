"""trajcheck report --wandb: what is handed to Weights & Biases, by a module that stands in for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from plain_run_files import Outcome
from saved_reports import analysis

import trajcheck
from trajcheck.reports import extras

Cli = Callable[..., Outcome]


class Stub(ModuleType):
    """init, log and finish as wandb has them; `refuse` is raised by log."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[SimpleNamespace] = []
        self.refuse: Exception | None = None
        self.Settings = lambda **settings: settings

    def init(self, **options: Any) -> Any:
        run = SimpleNamespace(options=options, logged={}, ended=None, offline=True, dir="wandb/run", url=None)

        def log(values: dict[str, float], step: int) -> None:
            if self.refuse:
                raise self.refuse
            assert step not in run.logged and all(step > other for other in run.logged), "steps go up, each once"
            run.logged[step] = values

        def finish(exit_code: int = 0) -> None:
            run.ended = exit_code

        run.log, run.finish = log, finish
        self.runs.append(run)
        return run


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stub:
    module = Stub()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return module


def test_a_run_a_report_with_every_number_under_its_step(cli: Cli, stub: Stub, tmp_path: Path) -> None:
    values = np.array([0.5, np.nan, -0.25, 1e-300])
    folders = [analysis(tmp_path / name, rows=4, change={"cos": values}) for name in ("a", "b")]
    done = cli("report", *folders, "--wandb", "project")
    assert done.code == 0 and len(done.out.splitlines()) == 2
    assert [run.options["name"] for run in stub.runs] == ["a-trajcheck", "b-trajcheck"]
    for run in stub.runs:
        assert run.options["project"] == "project" and run.options["resume"] == "never" and run.ended == 0
        assert run.options["settings"]["silent"]
        tag = "trajcheck/final/own/cos"
        assert {step: each[tag] for step, each in run.logged.items() if tag in each} == {0: 0.5, 2: -0.25, 3: 1e-300}
        assert all(np.isfinite(value) for each in run.logged.values() for value in each.values())


def test_the_same_numbers_have_the_same_name_and_others_another(stub: Stub, tmp_path: Path) -> None:
    folder = analysis(tmp_path / "a", rows=4)
    for change in (None, None, {"cos": 0.5}):
        trajcheck.log_wandb(analysis(folder, rows=4, change=change), "project")
    first, again, other = (run.options["id"] for run in stub.runs)
    assert first == again != other


def test_what_lies_there_is_not_logged_twice_and_then_none_is(cli: Cli, stub: Stub, tmp_path: Path) -> None:
    folders = [analysis(tmp_path / name, rows=4, change={"cos": k}) for k, name in ((0.5, "a"), (0.25, "b"))]
    trajcheck.log_wandb(folders[1], "project")
    (tmp_path / "wandb" / f"offline-run-20260101_000000-{stub.runs[0].options['id']}").mkdir(parents=True)
    done = cli("report", *folders, "--wandb", "project")
    assert done.code == 5 and "was logged before, with the same numbers" in done.err and len(stub.runs) == 1


def test_a_failure_is_an_error_of_the_output(cli: Cli, stub: Stub, tmp_path: Path) -> None:
    stub.refuse = ConnectionError("no route to the host.")
    done = cli("report", analysis(tmp_path / "a", rows=4), "--wandb", "project")
    assert done.code == 5 and "no route to the host. Log in with `wandb login`" in done.err
    assert stub.runs[0].ended == 1

"""Files that change while a run is read: no report is made of two states, nothing is saved under the other's key."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import trajcheck
from trajcheck.errors import RunError
from trajcheck.measuring.portions import Measurement


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}


@pytest.fixture
def step(plain_run: Path) -> Path:
    return plain_run / "step-000000004.safetensors"


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_is_swapped_during_the_pass(
    gone: bool, plain_run: Path, step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read as another one of its size, and is back, as it was, when the next call begins."""
    kept = shutil.copy2(step, tmp_path / "kept")
    expected = tables(trajcheck.analyze(plain_run, out=tmp_path / "expected").folder)
    compute = Measurement.compute

    def swapped(self: Any, *arguments: Any) -> None:
        shutil.copy(plain_run / "step-000000003.safetensors", tmp_path / "other")
        os.replace(tmp_path / "other", step)
        compute(self, *arguments)
        self.store.flush()  # as after a while
        if gone:
            step.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(Measurement, "compute", swapped)
        if gone:
            trajcheck.analyze(plain_run, out=tmp_path / "report")
        else:
            with pytest.raises(RunError, match=r"step-000000004\.safetensors: changed while the run was being read"):
                trajcheck.analyze(plain_run, out=tmp_path / "report")
    os.replace(kept, step)
    assert tables(trajcheck.analyze(plain_run, out=tmp_path / "report").folder) == expected


def test_steps_that_are_added_and_a_run_that_ends_meanwhile(
    plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plain_run / "run.json").write_text('{"format": 1}')
    compute = Measurement.compute

    def grown(self: Any, *arguments: Any) -> None:
        compute(self, *arguments)
        (plain_run / "run.json").write_text('{"format": 1, "optimizer": "SGD"}')
        shutil.copy(plain_run / "step-000000010.safetensors", plain_run / "step-000000099.safetensors")

    monkeypatch.setattr(Measurement, "compute", grown)
    report = trajcheck.analyze(plain_run, out=tmp_path / "report")
    assert len(report.steps) == 11 and list((tmp_path / "report" / "scalars").iterdir())

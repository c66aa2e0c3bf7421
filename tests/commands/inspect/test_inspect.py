"""commands/inspect: what a path is, in some ten lines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from plain_run_files import Outcome
from safetensors.numpy import save_file

import trajcheck

Cli = Callable[..., Outcome]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    stream = np.random.default_rng(0)
    folder = tmp_path / "archive"
    folder.mkdir()
    for step in (10, 20, 40):
        x: dict[str, np.ndarray] = {"w": stream.normal(size=(6, 5)).astype(np.float32)}
        x["running_mean"] = stream.normal(size=5)
        save_file(x, folder / f"step{step}.safetensors")
    return folder


def test_an_archive(archive: Path, cli: Cli) -> None:
    found = trajcheck.inspect(archive)
    assert found.steps == (10, 20, 40) and found.parameters == 30 and found.dtypes == ("F32",)
    assert (found.buffers, found.losses, found.gradients, found.update_pairs) == (1, 0, 0, 0)
    text = cli("inspect", archive).out
    assert "3 iterates, 10 to 40, 10 to 20 apart; x_0 is not there" in text
    assert "no loss, no rates, no gradient, no batch" in text and "one update by itself" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_recorded_run(plain_run: Path) -> None:
    found = trajcheck.inspect(plain_run)
    assert found.format == "trajcheck's own" and found.steps == tuple(range(11))
    assert found.gradients == found.batches and found.update_pairs == 10


def test_steps_that_cannot_be_used_are_named(archive: Path, cli: Cli) -> None:
    (archive / "step20.safetensors").write_bytes(b"truncated")
    outcome = cli("inspect", archive)
    assert outcome.code == 0 and "step 20 is left out" in " ".join(outcome.out.split())


def test_no_run(tmp_path: Path, cli: Cli) -> None:
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    assert cli("inspect", tmp_path / "nothing").code == 3

"""ranks.py, local_tensors.py and what the Recorder does on several ranks, in real processes on gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rank_files import rank_file
from rank_training import RANKS, STEPS, Normed, ddp, fsdp, plain, train, train_on_ranks
from run_files import metadata
from safetensors.numpy import load_file

import trajcheck
from trajcheck.schedules import Budget
from trajcheck.trajectory import open_trajectory

OBJECTIVE = f"{Path(__file__).parent / 'rank_training.py'}:language"
WRAPPERS = {"ddp": ddp, "fsdp": fsdp}


def jobs(rank: int, folder: Path) -> None:
    """Everything that two ranks record for this file's tests."""
    ends: dict[str, Any] = {}
    for name, wrap in WRAPPERS.items():
        ends[f"{name} unrecorded"] = train(wrap, rank, None)
        ends[name] = train(wrap, rank, folder / name, windows=True)
        ends[f"{name} resumed"] = train(wrap, rank, folder / f"{name}-resumed", windows=True, resume_at=5)
    thin = {"every": None, "schedule": Budget(bytes=12_000)}
    ends["thinned"] = train(ddp, rank, folder / "thinned", steps=24, micro=1, **thin)
    ends["dropped unrecorded"] = train(ddp, rank, None, make=Normed)
    ends["dropped"] = train(ddp, rank, folder / "dropped", make=Normed)
    torch.save(ends, folder / f"ends-{rank}.pt")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("ranks")
    train_on_ranks(jobs, folder)
    train(plain, None, folder / "one", windows=True)
    return folder


@pytest.fixture(scope="module")
def ends(recorded: Path) -> list[dict[str, Any]]:
    return [torch.load(recorded / f"ends-{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", ["ddp", "fsdp", "dropped"])
def test_training_is_the_same_to_the_bit(ends: list[dict[str, Any]], name: str) -> None:
    for end in ends:
        for tensor, value in end[f"{name} unrecorded"].items():
            assert torch.equal(value, end[name][tensor]), tensor


@pytest.mark.parametrize("name", ["ddp", "fsdp", "ddp-resumed", "fsdp-resumed"])
def test_the_report_is_that_of_one_process_with_the_joint_batches(recorded: Path, name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"refs": ["final", "init", "mean:3"], "objective": OBJECTIVE, "ref_gradients": True}
    expected = trajcheck.analyze(recorded / "one", **options, layers=True, out=tmp_path / "one")
    found = trajcheck.analyze(recorded / name, **options, layers=True, out=tmp_path / name)
    for table in ("steps", "references", "layers"):
        one, other = getattr(expected, table), getattr(found, table)
        assert len(one) == len(other) > STEPS
        errors = [column for column in one if column.startswith("replay_")]
        pd.testing.assert_frame_equal(one.drop(columns=errors), other.drop(columns=errors), rtol=1e-6, atol=1e-12)
        for column in errors:
            assert np.nanmax(other[column]) < 1e-12
    assert found.references["window_num"].notna().all()

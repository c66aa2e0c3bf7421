"""README.md: the recipe for several ranks runs, data-parallel and sharded, and its run can be analyzed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import fenced

import trajcheck
from trajcheck.runs.trajectory import open_trajectory

OBJECTIVE = """
import torch

def recipe():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    return model, lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1])
"""
LINE = re.compile(r"^model = DistributedDataParallel\(model\)  # or: (.*)$", re.MULTILINE)


@pytest.mark.parametrize("sharded", [False, True])
def test_the_recipe_for_several_ranks(tmp_path: Path, sharded: bool) -> None:
    (recipe,) = fenced("py")
    assert LINE.search(recipe)
    (tmp_path / "train.py").write_text(LINE.sub(r"\1", recipe) if sharded else recipe)
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(torchrun, cwd=tmp_path, check=False, timeout=400, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("recording runs/ranks: Every(k=1)") == 1
    report = trajcheck.analyze(
        tmp_path / "runs" / "ranks", objective=f"{tmp_path / 'objective.py'}:recipe", out=tmp_path / "report"
    )
    assert open_trajectory(tmp_path / "runs" / "ranks").steps == list(range(11))
    assert report.steps["replay_loss_error"].max() < 1e-6
    assert report.steps["replay_grad_error"].max() < 1e-5

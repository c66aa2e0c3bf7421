"""docs/record-any-training.md: the recipe for several ranks holds where parameters are sharded too, and torchrun takes
its line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from documents import DOCS, blocks
from forked_ranks import on_ranks

import trajcheck
from trajcheck.runs.trajectory import open_trajectory

PAGE = DOCS / "record-any-training.md"
OBJECTIVE = """
import torch

def recipe():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    return model, lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1])
"""
LINE = re.compile(r"^model = DistributedDataParallel\(model\)  # or: (.*)$", re.MULTILINE)


def test_the_recipe_with_sharded_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = (block.text for block in blocks(PAGE) if block.notes.get("file") == "train.py")
    assert LINE.search(recipe)
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    monkeypatch.chdir(tmp_path)
    assert on_ranks(LINE.sub(r"\1", recipe), 2).count("recording runs/ranks: Every(k=1)") == 1
    report = trajcheck.analyze("runs/ranks", objective="objective.py:recipe", out="report")
    assert open_trajectory(tmp_path / "runs" / "ranks").steps == list(range(11))
    assert report.steps["replay_loss_error"].max() < 1e-6
    assert report.steps["replay_grad_error"].max() < 1e-5


def test_torchrun_takes_the_line() -> None:
    from torch.distributed.run import get_args_parser

    (line,) = re.findall(r"^torchrun (.*?) &&", PAGE.read_text(), re.MULTILINE)
    arguments = get_args_parser().parse_args(shlex.split(line))
    assert (arguments.nproc_per_node, arguments.training_script) == ("2", "train.py")

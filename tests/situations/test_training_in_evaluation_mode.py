"""A model that is trained in evaluation mode, whole or in parts: replayed in the modes of each step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))

def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])

def data():
    stream = torch.Generator().manual_seed(7)
    return [(torch.randn(8, 4, generator=stream), torch.randn(8, 1, generator=stream)) for _ in range(2)]

def objective():
    return network(), loss, data()
"""
MADE: dict[str, Any] = {}
exec(SOURCE, MADE)
STEPS = 4


def pretrained() -> nn.Module:
    model: nn.Module = MADE["network"]()
    for x, _ in MADE["data"]():
        model(x * 3 + 1)
    return model


def set_modes(model: nn.Module, which: str, step: int) -> None:
    model.train()
    if which == "whole":
        model.eval()
    elif which == "part" or (which == "later" and step >= 2):
        model[1].eval()  # type: ignore[index]


def train(folder: Path, which: str, **options: Any) -> tuple[list[nn.Module], list[float]]:
    model = pretrained()
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.1), MADE["data"]()
    models, losses = [], []
    with trajcheck.Recorder(folder, model, optimizer, every=1, strict=True, quiet=True, **options) as recorder:
        for step in range(STEPS):
            set_modes(model, which, step)
            models.append(copy.deepcopy(model))
            batch = batches[step % 2]
            loss = F.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            recorder.observe(batch, loss)
            losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
            model.eval()  # as a validation in between leaves it
    return models, losses


def dense(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    total = 0.0
    for x, y in batches:
        total += F.mse_loss(copy.deepcopy(model)(x), y).item() / len(batches)
    return total


@pytest.mark.parametrize("which", ["whole", "part", "later"])
def test_each_step_is_replayed_in_its_modes(which: str, tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text(SOURCE)
    models, losses = train(tmp_path / "run", which)
    report = trajcheck.analyze(
        tmp_path / "run",
        ("init",),
        f"{tmp_path / 'objective.py'}:objective",
        sample=("own", "full"),
        out=tmp_path / "out",
    )
    own = report.steps[report.steps["sample"] == "own"]
    assert own["loss"].tolist()[:STEPS] == pytest.approx(losses, rel=1e-5)
    assert own["replay_loss_error"].dropna().max() < 1e-5
    assert own["replay_grad_error"].dropna().max() < 1e-4
    if which == "whole":  # no mask is drawn, so a plain evaluation is the same
        full = report.steps[report.steps["sample"] == "full"]["loss"].tolist()
        batches = MADE["data"]()
        assert full[:STEPS] == pytest.approx([dense(model, batches) for model in models], rel=1e-5)


@pytest.mark.parametrize("which", ["whole", "part"])
def test_an_exported_program_is_of_the_mode_of_its_step(which: str, tmp_path: Path) -> None:
    _, losses = train(tmp_path / "run", which, objective=MADE["loss"])
    report = trajcheck.analyze(tmp_path / "run", ("init",), "run", out=tmp_path / "out")
    assert report.steps["replay_loss_error"].dropna().max() < 1e-5
    assert report.steps["loss"].tolist()[:STEPS] == pytest.approx(losses, rel=1e-5)


def test_steps_of_another_mode_than_the_exported_program_are_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path / "run", "later", objective=MADE["loss"])
    report = trajcheck.analyze(tmp_path / "run", ("init",), "run", out=tmp_path / "out")
    assert report.steps["replay_loss_error"].notna().tolist() == [True, True, False, False, False]
    undefined = report.undefined
    reason = (
        "the exported program is that of a model in training, and this step was made in training, with 1 in evaluation"
    )
    assert undefined["reason"].str.contains(reason, regex=False).any()

"""A loss that draws random numbers before it calls the model: a record holds the generators of that call, unless it is
told where the loss begins."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import trajcheck
from trajcheck.errors import ObjectiveError


def _noisy(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    noisy = inputs + torch.randn_like(inputs)
    return torch.nn.functional.mse_loss(model(noisy), targets)


def _recorded(path: Path, *, told: bool) -> list[float]:
    torch.manual_seed(3)
    model, losses = torch.nn.Linear(3, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with trajcheck.Recorder(path, model, optimizer, every=1, objective=_noisy, quiet=True) as recorder:
            for _ in range(3):
                batch = (torch.randn(8, 3), torch.randn(8, 1))
                if told:
                    recorder.forward_begins(model)
                loss = _noisy(model, batch)
                loss.backward()
                recorder.observe(batch, loss)
                losses.append(loss.item())
                optimizer.step()
                optimizer.zero_grad()
    return losses


def test_the_refusal_names_the_draws_and_not_another_torch(tmp_path: Path) -> None:
    _recorded(tmp_path / "run", told=False)
    with pytest.raises(ObjectiveError, match="draws before it calls the model") as refused:
        trajcheck.analyze(tmp_path / "run", objective="run", out=tmp_path / "report")
    assert "use that version" not in str(refused.value) and "forward_begins" in str(refused.value)


def test_what_it_advises_gives_the_losses_of_training(tmp_path: Path) -> None:
    losses = _recorded(tmp_path / "run", told=True)
    report = trajcheck.analyze(tmp_path / "run", objective="run", out=tmp_path / "report")
    assert report.steps["loss"].dropna().tolist() == pytest.approx(losses, rel=1e-5)

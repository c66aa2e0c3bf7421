"""Trainings in which nothing but the optimizer changes parameters, far from any record: nothing is said of them.

The optimizers of torch in every implementation, loss scaling, clipping, accumulation, averages outside of the model,
evaluation with other weights that are put back; models with large tensors, which are sampled.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trajcheck import Recorder

STEPS = 9
Make = Callable[[Any], torch.optim.Optimizer]


def made(kind: Any, **options: Any) -> Make:
    return lambda parameters: kind(parameters, **{"lr": 0.01, **options})


OPTIMIZERS: dict[str, Make] = {
    "SGD": made(torch.optim.SGD),
    "SGD, momentum, foreach": made(torch.optim.SGD, momentum=0.9, nesterov=True, foreach=True),
    "Adam, single": made(torch.optim.Adam, foreach=False),
    "Adam, fused": made(torch.optim.Adam, fused=True),
    "AdamW, foreach": made(torch.optim.AdamW, foreach=True, amsgrad=True),
    "RMSprop": made(torch.optim.RMSprop, centered=True),
    "Rprop": made(torch.optim.Rprop),
    "Adafactor": made(torch.optim.Adafactor),
    "LBFGS": made(torch.optim.LBFGS, max_iter=3),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 3, bias=False))


def said(
    folder: Path, make: Make, around: Callable[[Any, int], None] = lambda model, step: None, **how: Any
) -> list[str]:
    """What was said of a training with `around` after each step, and what its last record says was unseen."""
    model = network()
    if how.get("dtype"):
        model.to(how["dtype"])
    optimizer = make(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if how.get("scaled") else None
    scheduler = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=STEPS) if how.get("scheduled") else None
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(
            folder / "run", model, optimizer, every=STEPS - 1, quiet=True, strict=True, scaler=scaler
        ) as recorder:
            for step in range(STEPS):
                x = torch.randn(16, 40, dtype=how.get("dtype"))

                def closure(x: torch.Tensor = x, step: int = step) -> torch.Tensor:
                    optimizer.zero_grad()
                    for _ in range(how.get("micro", 1)):
                        loss = model(x).square().mean() * (torch.inf if how.get("scaled") and step == 4 else 1.0)
                        (loss if scaler is None else scaler.scale(loss)).backward()
                        recorder.observe(x, loss.detach(), weight=1.0)
                    return loss

                if isinstance(optimizer, torch.optim.LBFGS):
                    optimizer.step(closure)
                else:
                    closure()
                    if how.get("clipped"):
                        recorder.clip_grad_norm_(0.1)
                    if scaler is None:
                        optimizer.step()
                    else:
                        scaler.step(optimizer)
                        scaler.update()
                if scheduler is not None:
                    scheduler.step()
                around(model, step)
    last = max((folder / "run").glob("step-*"))
    header = json.loads(last.read_bytes()[8 : 8 + int.from_bytes(last.read_bytes()[:8], "little")])
    found = json.loads(header["__metadata__"]["trajcheck"]).get("unseen")
    return [str(each.message) for each in caught if "changed" in str(each.message)] + ([str(found)] if found else [])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_is_taken_for_something_else(name: str, tmp_path: Path) -> None:
    assert said(tmp_path, OPTIMIZERS[name]) == []


HOW: dict[str, dict[str, Any]] = {
    "scaled": {"scaled": True},
    "scheduled": {"scheduled": True},
    "clipped, accumulated": {"clipped": True, "micro": 3},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
}


@pytest.mark.parametrize("name", HOW)
def test_no_loop_is_taken_for_something_else(name: str, tmp_path: Path) -> None:
    assert said(tmp_path, OPTIMIZERS["AdamW, foreach"], **HOW[name]) == []


def test_averages_and_evaluations_change_nothing(tmp_path: Path) -> None:
    averages: list[Any] = []

    def around(model: Any, step: int) -> None:
        if not averages:
            averages.append(AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)))
        averages[0].update_parameters(model)
        held = copy.deepcopy(model.state_dict())
        if step == 3:  # through .data, and back
            for p, other in zip(model.parameters(), averages[0].module.parameters(), strict=True):
                p.data.copy_(other.data)
            for name, p in model.named_parameters():
                p.data.copy_(held[name])
        if step == 5:
            model.load_state_dict(averages[0].module.state_dict())
            model.load_state_dict(held)
        if step == 6:
            model.eval()
            model(torch.randn(4, 40))
            model.train()

    assert said(tmp_path, OPTIMIZERS["Adam, single"], around) == []

"""LBFGS evaluates its closure several times a step: x_t, and f and g_t of the first evaluation there, are recorded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import read, recorded_steps
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck

STEPS = 4

OBJECTIVE = """
from torch import nn
from torch.nn import functional as F

def fit():
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    return model, lambda model, batch: F.mse_loss(model(batch[0]), batch[1])
"""


def fit(recorder_of: Any, seen: list[Any] | None, windows: bool = False) -> nn.Module:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    mse = nn.MSELoss()
    recorder = recorder_of(model, optimizer)
    for _ in range(STEPS):
        batch = torch.randn(16, 3), torch.randn(16, 1)
        if seen is not None:
            seen.append((copy.deepcopy(model), batch))

        def closure(batch: tuple[Tensor, Tensor] = batch) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = mse(model(batch[0]), batch[1])
            loss.backward()
            if recorder is not None:
                recorder.observe(batch, loss)
            return loss

        optimizer.step(closure)
    if recorder is not None:
        recorder.close()
    return model


def dense(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
    wide = copy.deepcopy(model).double()
    loss = F.mse_loss(wide(batch[0].double()), batch[1].double())
    return float(loss.detach()), torch.cat([p.flatten() for p in torch.autograd.grad(loss, list(wide.parameters()))])


@pytest.mark.parametrize("edited", [True, False])
def test_its_first_evaluation_is_recorded(edited: bool, tmp_path: Path) -> None:
    seen: list[Any] = []
    options: dict[str, Any] = {"every": 1, "strict": True, "quiet": True}
    if edited:
        trained = fit(lambda *parts: trajcheck.Recorder(tmp_path / "run", *parts, **options), seen)
    else:
        with trajcheck.record(tmp_path / "run", **options):
            trained = fit(lambda *parts: None, seen)
    untouched = fit(lambda *parts: None, None)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), untouched.parameters(), strict=True))
    assert recorded_steps(tmp_path / "run") == list(range(STEPS + 1))
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    report = trajcheck.analyze(tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:fit", out=tmp_path / "report")
    steps, towards = report.steps.set_index("step"), report.references.set_index("step")
    end = torch.cat([p.detach().double().flatten() for p in trained.parameters()])
    for step, (model, batch) in enumerate(seen):
        loss, gradient = dense(model, batch)
        tensors, metadata = read(tmp_path / "run", step)
        names = [name for name, _ in model.named_parameters()]
        recorded = torch.cat([tensors[f"grad/{name}"].double().flatten() for name in names])
        assert torch.allclose(recorded, gradient, rtol=1e-4, atol=1e-6)
        assert metadata["loss"] == pytest.approx(loss, rel=1e-5) and metadata["lr"] == [0.5]
        assert "micro_batches" not in metadata and "omitted" not in metadata and "unseen" not in metadata
        assert all(torch.equal(tensors[f"param/{name}"], p) for name, p in model.named_parameters())
        here = torch.cat([p.detach().double().flatten() for p in model.parameters()])
        cosine = gradient @ (here - end) / (gradient.norm() * (here - end).norm())
        assert towards["cos"][step] == pytest.approx(float(cosine), abs=1e-4)
        assert steps["replay_loss_error"][step] < 1e-5
    assert steps["tau"].tolist() == [0.5 * step for step in range(STEPS + 1)]

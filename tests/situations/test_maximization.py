"""SGD(maximize=True), as policy gradients and dual variables are trained: f is what is made larger, and every column is
of f. Against float64: the signs of all that knows of the update's direction, and of weight decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trajcheck

LR, DECAY, STEPS = 0.05, 0.1, 6
OBJECTIVE = """
import torch
from torch import nn

def batch():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    return x, x.sum(1, keepdim=True)

def reward():
    return nn.Linear(3, 1), lambda model, z: -(model(z[0]) - z[1]).square().mean(), [batch()]
"""
MADE: dict[str, Any] = {}
exec(OBJECTIVE, MADE)


def reward(model: nn.Module, z: tuple[Tensor, Tensor]) -> Tensor:
    return -(model(z[0]) - z[1]).square().mean()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, np.ndarray, np.ndarray]:
    """The folder, the objective, x_t and g_t."""
    folder = tmp_path_factory.mktemp("maximized")
    (folder / "objective.py").write_text(OBJECTIVE)
    torch.manual_seed(0)
    model: Any = nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, weight_decay=DECAY, maximize=True)
    z = MADE["batch"]()
    iterates, gradients = [], []
    with trajcheck.Recorder(folder / "run", model, optimizer, every=1, quiet=True, strict=True) as recorder:
        for _ in range(STEPS):
            value = reward(model, z)
            value.backward()
            recorder.observe(z, value)
            iterates.append(torch.cat([p.detach().clone().ravel() for p in model.parameters()]).numpy())
            gradients.append(torch.cat([*(p.grad.clone().ravel() for p in model.parameters())]).numpy())
            optimizer.step()
            optimizer.zero_grad()
        iterates.append(torch.cat([p.detach().clone().ravel() for p in model.parameters()]).numpy())
    return folder / "run", f"{folder / 'objective.py'}:reward", np.array(iterates), np.array(gradients)


def test_every_sign_is_that_of_what_is_maximized(run: Any, tmp_path: Path) -> None:
    folder, objective, x, g = run
    report = trajcheck.analyze(folder, objective=objective, replay_dtype="float64", out=tmp_path, quiet=True)
    steps, towards = report.steps.set_index("step"), report.references.set_index("step")
    for t in range(STEPS):
        error, followed = (
            x[t] - x[-1],
            g[t] - DECAY * x[t],
        )  # torch adds the decay to -g: the update is eta (g - lambda x)
        assert x[t + 1] - x[t] == pytest.approx(LR * followed, rel=1e-9)
        assert towards["rsi"][t] == pytest.approx(g[t] @ error / (error @ error), rel=1e-9)
        assert towards["cos"][t] == pytest.approx(g[t] @ error / np.linalg.norm(g[t]) / np.linalg.norm(error), rel=1e-9)
        assert towards["rsi_wd"][t] == pytest.approx(followed @ error / (error @ error), rel=1e-9)
        assert towards["eb_wd"][t] == pytest.approx(np.linalg.norm(followed) / np.linalg.norm(error), rel=1e-9)
        cos = followed @ error / np.linalg.norm(followed) / np.linalg.norm(error)
        assert towards["cos_wd"][t] == pytest.approx(cos, rel=1e-9)
        assert towards["update_dot_ref"][t] == pytest.approx((x[t + 1] - x[t]) @ error, rel=1e-9)
    # towards x_{t+1} it is the law of plain SGD with the other sign
    assert towards["cos_wd"][STEPS - 1] == pytest.approx(-1) and towards["rsi_wd"][STEPS - 1] == pytest.approx(-1 / LR)
    for t in range(1, STEPS):
        assert steps["descent"][t] == pytest.approx(g[t - 1] @ (x[t] - x[t - 1]), rel=1e-9)
        assert steps["descent"][t] > 0 and steps["loss_change"][t] > 0
    assert not {"lo_lr", "cos_floor", "rsi_floor"} & {name for name in towards if towards[name].notna().any()}
    assert [line for line in report.summary["warnings"] if line.startswith("SGD went up its gradients (maximize=True)")]


def test_the_flow_of_a_run_that_ascends_is_said_not_to_be_its_own(run: Any, tmp_path: Path) -> None:
    folder, objective, _, _ = run
    flow = trajcheck.flow(folder, objective, out=tmp_path, quiet=True)
    assert [line for line in flow.summary["warnings"] if "its optimizer is SGD, which ascends (maximize=True)" in line]

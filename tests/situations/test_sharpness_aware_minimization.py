"""SAM (Foret et al., arXiv 2010.01412), as its best known implementation does it: the gradient of a step is that of
x_t + e, which is no g_t, and the step goes on from x_t."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from loops import read, run_json
from torch import Tensor, nn

import trajcheck
from trajcheck import Recorder

OBJECTIVE = """
from torch import nn

def network():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), lambda m, z: (m(z[0]) - z[1]).square().mean()
"""


class SAM(torch.optim.Optimizer):
    """Ascends by rho along the gradient, and lets another optimizer step with the gradient there; `exact` puts the
    weights back from a copy of theirs, through .data, else by subtraction, to within rounding."""

    def __init__(self, params: Any, base: Any, rho: float = 0.5, exact: bool = True, **options: Any) -> None:
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.exact = exact

    @torch.no_grad()
    def first_step(self) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        for p in params:
            self.state[p]["old"], self.state[p]["e"] = p.data.clone(), p.grad * self.param_groups[0]["rho"] / norm
            p.add_(self.state[p]["e"]) if self.exact else p.data.add_(self.state[p]["e"])
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if self.exact:
                    p.data = self.state[p]["old"]
                else:
                    p.data.sub_(self.state[p]["e"])
        self.base_optimizer.step()
        self.zero_grad()


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1, keepdim=True)


def value(model: nn.Module, z: tuple[Tensor, Tensor]) -> Tensor:
    loss: Tensor = (model(z[0]) - z[1]).square().mean()
    return loss


def trained(
    path: Path, *, exact: bool, every: int = 1, windows: bool = False, first: bool = False
) -> tuple[list[Any], list[str]]:
    """The models as the steps found them, and the warnings; `first`: the loss at x_t is observed at once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05, exact=exact)
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # given SAM itself, whose step() is never called
        with Recorder(path, model, optimizer, every=every, windows=windows, quiet=True) as recorder:
            for step in range(6):
                found.append(copy.deepcopy(model))
                loss = value(model, batch(step))
                loss.backward()
                if first:
                    recorder.observe(batch(step), loss)
                optimizer.first_step()
                value(model, batch(step)).backward()
                if not first:
                    recorder.observe(batch(step), loss)
                optimizer.second_step()
    return found, [str(each.message) for each in caught]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("exact", [True, False])
def test_a_gradient_that_was_taken_elsewhere_is_not_stored(exact: bool, every: int, tmp_path: Path) -> None:
    _, said = trained(tmp_path, exact=exact, every=every)
    for step in range(0, 6, every):
        tensors, metadata = read(tmp_path, step)
        assert not [name for name in tensors if name.startswith("grad/")]
        assert (
            "taken at other parameters than x_t: 0.weight, 0.bias, 2.weight and 1 more"
            in metadata["omitted"]["gradient"]
        )
        assert "loss" not in metadata
        assert "unseen" not in metadata  # it steps from x_t
    assert len(said) == 1
    assert f"the gradients of {6 // every} recorded steps, first step 0, were taken at other parameters" in said[0]
    assert run_json(tmp_path)["optimizer"]["name"] == "SAM(SGD)"


def test_what_was_observed_before_the_ascent_is_lost_and_the_way_is_named(tmp_path: Path) -> None:
    """The way that it names is that of the other tests: observe() after the second backward pass."""
    trained(tmp_path / "run", exact=True, first=True)
    reason = read(tmp_path / "run", 1)[1]["omitted"]["batch"]
    assert reason.startswith("the gradients of what was observed (1 times) were cleared before the optimizer's step.")
    assert "under SAM that at x_t + e, whose batch is then replayed at x_t" in reason
    warned = trajcheck.analyze(tmp_path / "run", out=tmp_path / "out", quiet=True).summary["warnings"]
    assert f"the batch of 6 steps is not in the run: {reason}" in warned


def test_window_sums_do_not_take_it_either(tmp_path: Path) -> None:
    trained(tmp_path, exact=True, every=3, windows=True)
    assert not [name for name in read(tmp_path, 3)[0] if name.startswith("window/")]


def test_the_replay_has_the_gradient_of_x_t(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    models, _ = trained(tmp_path / "run", exact=True)
    report = trajcheck.analyze(
        tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:network", out=tmp_path / "out", quiet=True
    )
    steps = report.steps.set_index("step")
    for step, model in enumerate(models):
        wide = copy.deepcopy(model).double()
        loss = value(wide, tuple(each.double() for each in batch(step)))  # type: ignore[arg-type]
        gradients = torch.autograd.grad(loss, list(wide.parameters()))
        expected = np.sqrt(sum(float(g.square().sum()) for g in gradients))
        assert steps["grad_norm"][step] == pytest.approx(expected, rel=1e-5)
        assert steps["loss"][step] == pytest.approx(loss.item(), rel=1e-5)
    assert "replay_grad_error" not in steps or steps["replay_grad_error"].isna().all()
    assert report.references["cos_floor"].isna().all() if "cos_floor" in report.references else True
    assert [line for line in report.summary["warnings"] if "the gradient of 6 steps is not in the run" in line]
    stored = trajcheck.analyze(tmp_path / "run", out=tmp_path / "stored", quiet=True)
    assert "grad_norm" not in stored.steps
    reasons = stored.undefined["reason"] if stored.undefined is not None else pd.Series([], dtype=str)
    assert reasons.str.contains("it was taken at other parameters than x_t").any()

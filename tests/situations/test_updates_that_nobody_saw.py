"""Parameters that something else than the recorded optimizer changes: an outer loop, another optimizer, weight surgery.

Which steps those are is told from copies that the test itself makes of every iterate, before and after each step.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import pairwise
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
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), lambda m, z: (m(z[0]) - z[1]).square().mean()
"""
Model = Any
Edit = Callable[[Model, int], None]


def network() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def batch(step: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(step)
    x = torch.randn(8, 3, generator=stream)
    return x, x.sum(1, keepdim=True)


def flat(model: nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()])


def make(name: str, model: nn.Module) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": 0.05}
    if name in ("foreach", "fused"):
        options = {"lr": 0.01, name: True}
        return torch.optim.Adam(model.parameters(), **options)
    if name == "momentum":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **options)
    return getattr(torch.optim, name)(model.parameters(), **options)


def train(
    path: Path, edit: Edit = lambda model, step: None, steps: int = 12, optimizer: str = "SGD", **options: Any
) -> tuple[list[int], list[str], list[np.ndarray]]:
    """The steps before which `edit` moved parameters, the warnings, and the iterates, as steps found them."""
    model = network()
    inner = make(optimizer, model)
    moved, left, iterates = [], None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(path, model, inner, quiet=True, **{"every": 1, **options}) as recorder:
            for step in range(steps):
                z = batch(step)
                loss = (model(z[0]) - z[1]).square().mean()
                loss.backward()
                iterates.append(flat(model))
                if left is not None and (flat(model) != left).any():
                    moved.append(step)
                recorder.observe(z, loss)
                inner.step()
                left = flat(model)
                inner.zero_grad()
                if step < steps - 1:
                    edit(model, step)
        iterates.append(flat(model))
    return moved, [str(each.message) for each in caught], iterates


def clamped(model: Model, step: int) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.clamp_(-0.3, 0.3)


def copied_back(model: Model, step: int) -> None:
    """Through .data, which raises no version."""
    if step % 5 == 4:
        for p in model.parameters():
            p.data.mul_(0.9)


def pruned(model: Model, step: int) -> None:
    """Of one tensor alone, one of the large ones."""
    if step == 6:
        with torch.no_grad():
            model[0].weight[model[0].weight.abs() < 0.2] = 0


def rearranged(model: Model, step: int) -> None:
    """Hidden units in another order: the function, the norms and the sums are the same."""
    if step == 6:
        order = torch.arange(8).flip(0)
        model[0].weight.data = model[0].weight.data[order].clone()
        model[0].bias.data = model[0].bias.data[order].clone()
        model[2].weight.data = model[2].weight.data[:, order].clone()


EDITS = [clamped, copied_back, pruned, rearranged]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("edit", EDITS)
def test_what_moved_between_two_steps_is_counted_and_named(edit: Edit, every: int, tmp_path: Path) -> None:
    moved, said, _ = train(tmp_path, edit, every=every)
    assert moved
    _, metadata = read(tmp_path, 12)
    assert metadata["unseen"]["times"] == len(moved)
    assert (metadata["unseen"]["first"], metadata["unseen"]["last"]) == (moved[0], moved[-1])
    assert [line for line in said if f"before {len(moved)} of the steps, the first of them step {moved[0]}" in line]
    if edit is pruned:
        assert metadata["unseen"]["tensors"] == ["0.weight"]


def averaged_and_back(model: Model, step: int) -> None:
    """Other weights for an evaluation, and the same again."""
    held = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    model.load_state_dict(held)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "AdamW", "foreach", "fused", "RMSprop", "Adagrad"])
def test_ordinary_trainings_raise_no_alarm(optimizer: str, every: int, tmp_path: Path) -> None:
    """Nor does an evaluation with other weights that are put back."""
    moved, said, _ = train(tmp_path, averaged_and_back, optimizer=optimizer, every=every)
    assert (moved, said) == ([], [])
    assert "unseen" not in read(tmp_path, 12)[1]


def test_what_is_said_of_updates_is_empty_across_them(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    moved, _, iterates = train(tmp_path / "run", copied_back)
    report = trajcheck.analyze(
        tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:network", out=tmp_path / "out", quiet=True
    )
    assert [
        line for line in report.summary["warnings"] if "before 2 steps, from 5 to 10, something else than SGD" in line
    ]
    steps = report.steps.set_index("step")
    towards = report.references.set_index("step")
    for name in ("update_corr", "descent", "loss_change"):
        assert [step for step in range(1, 13) if pd.isna(steps[name][step])] == (
            [*moved] if name == "descent" else [*moved, 12]
        ), name
    # the displacement is what it is
    lengths = [float(np.linalg.norm(after - before)) for before, after in pairwise(iterates)]
    assert np.allclose(steps["step_norm"][1:13], lengths, rtol=1e-6)
    assert steps["inst_gap"][moved].notna().all()
    assert [step for step in range(12) if pd.isna(towards["update_dot_ref"][step])] == [step - 1 for step in moved]
    # x_t - x_T is the sum of SGD's steps only after the last edit
    assert [step for step in range(12) if pd.notna(towards["cos_floor"][step])] == [10, 11]
    reasons = report.undefined.query("table == 'steps' and column == 'update_corr'")["reason"]
    assert reasons.str.contains("something else than the optimizer changed parameters").any()


def test_an_average_that_is_loaded_before_closing_is_not_the_final_iterate(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tmp_path / "run"
    with (
        Recorder(run, model, optimizer, every=2, quiet=True) as recorder,
        pytest.warns(RuntimeWarning, match="1 of"),
    ):
        for step in range(5):
            z = batch(step)
            loss = (model(z[0]) - z[1]).square().mean()
            loss.backward()
            recorder.observe(z, loss)
            optimizer.step()
            optimizer.zero_grad()
        for p in model.parameters():
            p.data.mul_(0.99)
        recorder.close()
    assert sorted(int(path.stem[5:]) for path in run.glob("step-*")) == [0, 2, 4]
    ended = run_json(run)["ended"]
    assert ended["step"] == 5
    assert "the final iterate is left out: after the last step something else than SGD changed" in ended["reason"]
    report = trajcheck.analyze(run, out=tmp_path / "out", quiet=True)
    assert [line for line in report.summary["warnings"] if "recording ended at step 5" in line]


def test_an_optimizer_that_is_made_anew_is_named(tmp_path: Path) -> None:
    model = network()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(tmp_path, model, optimizer, every=1, quiet=True) as recorder:
            for step in range(8):
                if step == 4:
                    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
                z = batch(step)
                loss = (model(z[0]) - z[1]).square().mean()
                loss.backward()
                recorder.observe(z, loss)
                if step == 5:  # the first that can be known
                    assert any("SGD has made no step" in str(each.message) for each in caught)
                optimizer.step()
                optimizer.zero_grad()
    said = next(str(each.message) for each in caught if "has made no step" in str(each.message))
    assert "AdamW updates them, which is not recorded" in said
    assert sorted(int(path.stem[5:]) for path in tmp_path.glob("step-*")) == [0, 1, 2, 3]
    assert "the final iterate is left out" in run_json(tmp_path)["ended"]["reason"]

"""Muon for matrices and AdamW for the rest: one step of the run is one step of both, and x_t is whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import read, run_json
from torch import Tensor, nn

import trajcheck
from trajcheck import Recorder
from trajcheck.errors import RecorderError

Loop = Callable[[int, list[Any]], None]


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))


def optimizers(model: Any) -> list[Any]:
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(vectors, lr=0.01, weight_decay=0.1)]


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return x, x[:, :2] ** 2


def in_order(step: int, parts: list[Any]) -> None:
    for part in parts:
        part.step()
    for part in parts:
        part.zero_grad()


def backwards(step: int, parts: list[Any]) -> None:
    """Each clears its gradients at once."""
    for part in reversed(parts):
        part.step()
        part.zero_grad()


def second_every_other(step: int, parts: list[Any]) -> None:
    parts[0].step()
    if step % 2:
        parts[1].step()
    for part in parts:
        part.zero_grad()


def recorded(path: Path, loop: Loop, steps: int = 6, **options: Any) -> tuple[list[Any], list[Any], list[str]]:
    """x_t and g_t as the loop itself saw them, by name, and the warnings."""
    model = network()
    parts = optimizers(model)
    iterates, gradients = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(path, model, parts, every=1, quiet=True, strict=True, **options) as recorder:
            for step in range(steps):
                z = batch(step)
                loss = (model(z[0]) - z[1]).square().mean()
                loss.backward()
                recorder.observe(z, loss)
                iterates.append({name: p.detach().clone() for name, p in model.named_parameters()})
                gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
                loop(step, parts)
            iterates.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return iterates, gradients, [str(each.message) for each in caught]


@pytest.mark.parametrize("loop", [in_order, backwards])
def test_a_step_is_one_step_of_each(loop: Loop, tmp_path: Path) -> None:
    iterates, gradients, said = recorded(tmp_path, loop)
    assert said == []
    for step, iterate in enumerate(iterates):
        tensors, metadata = read(tmp_path, step)
        for name, value in iterate.items():
            assert torch.equal(tensors[f"param/{name}"], value)
        if step < len(gradients):
            for name, value in gradients[step].items():
                assert torch.equal(tensors[f"grad/{name}"], value)
            assert metadata["lr"] == [0.02, 0.01]
        assert metadata["tau"] == pytest.approx([0.02 * step, 0.01 * step])
    assert len(list(tmp_path.glob("step-*"))) == 7
    described = run_json(tmp_path)["optimizer"]
    assert described["name"] == "Muon + AdamW"
    assert [(group["optimizer"], group["decoupled"]) for group in described["groups"]][1] == ("AdamW", True)
    numbers = {entry["name"]: entry["group"] for entry in run_json(tmp_path)["parameters"]}
    assert numbers == {"0.weight": 0, "0.bias": 1, "2.weight": 0, "2.bias": 1}


@pytest.mark.parametrize("loop", [in_order, backwards])
def test_window_sums_are_of_all(loop: Loop, tmp_path: Path) -> None:
    _, gradients, _ = recorded(tmp_path, loop, windows=True)
    tensors, metadata = read(tmp_path, 4)
    for name, value in gradients[3].items():
        assert torch.equal(tensors[f"window/{name}"], value)
    squares = sum(float(g.double().square().sum()) for g in gradients[3].values())
    assert metadata["window"]["grad_sq_sum"] == pytest.approx(squares, rel=1e-6)
    assert metadata["window"]["from"] == 3


def test_one_that_makes_no_update_is_named(tmp_path: Path) -> None:
    iterates, _, said = recorded(tmp_path, second_every_other)
    assert ["AdamW made no update in 3 steps" in line for line in said] == [True]
    for step, iterate in enumerate(iterates):
        tensors, metadata = read(tmp_path, step)
        for name, value in iterate.items():
            assert torch.equal(tensors[f"param/{name}"], value), (step, name)
        if step < 6:
            assert metadata["lr"] == [0.02, 0.01 * (step % 2)]
            assert bool([name for name in tensors if name.startswith("grad/")]) == bool(step % 2)
            assert step % 2 or metadata["omitted"]["gradient"] == "AdamW made no update in this step"
        assert metadata["tau"] == pytest.approx([0.02 * step, 0.01 * (step // 2)])
        assert "unseen" not in metadata


def test_the_report_is_of_the_whole_step(tmp_path: Path) -> None:
    iterates, gradients, _ = recorded(tmp_path / "run", in_order)
    report = trajcheck.analyze(tmp_path / "run", out=tmp_path / "out", quiet=True)
    flat = [np.concatenate([t.double().numpy().ravel() for t in each.values()]) for each in iterates]
    slopes = [np.concatenate([t.double().numpy().ravel() for t in each.values()]) for each in gradients]
    towards = report.references.set_index("step")
    for step in range(6):
        error = flat[step] - flat[-1]
        expected = error @ slopes[step] / np.linalg.norm(error) / np.linalg.norm(slopes[step])
        assert towards["cos"][step] == pytest.approx(expected, rel=1e-6)
    assert report.summary["run"]["optimizer"] == "Muon + AdamW"
    assert "stability_threshold" not in report.steps or report.steps["stability_threshold"].isna().all()


def test_what_is_refused(tmp_path: Path) -> None:
    model = network()
    one = torch.optim.SGD(model.parameters(), lr=0.1)
    cases: list[tuple[Any, str]] = [
        ([one, one], "hold the same parameters"),
        ([one, torch.optim.Adam(model[0].parameters())], "hold the same parameters"),
        ([], "empty list"),
        ([one, "adam"], "got str"),
    ]
    for wrong, words in cases:
        with pytest.raises(RecorderError, match=words):
            Recorder(tmp_path / "run", model, wrong)
        assert not (tmp_path / "run").exists()
        assert not one._optimizer_step_pre_hooks

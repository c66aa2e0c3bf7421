"""Layers that are unfrozen one after the other, or frozen again: distances are over all that were ever trained.

The loop keeps its own copies of every iterate and of what the optimizer used.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import read, run_json
from torch import Tensor, nn

import trajcheck
from trajcheck import Recorder

OBJECTIVE = """
from torch import nn

def network():
    body = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    return body, lambda m, z: (m(z[0]) - z[1]).square().mean()
"""
STEPS = 9


def network() -> Any:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    for layer in (model[0], model[2]):
        layer.requires_grad_(False)
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1, keepdim=True)


def flat(tensors: dict[str, Tensor]) -> np.ndarray:
    return np.concatenate([each.double().numpy().ravel() for each in tensors.values()])


def trained(path: Path, *, windows: bool = False, every: int = 1) -> tuple[list[Any], list[Any], list[str]]:
    """The head alone; the middle layer from step 3 on at a rate of its own; the first from step 5 on; the head is
    frozen from step 7 on."""
    model = network()
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    iterates, gradients = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(path, model, optimizer, every=every, windows=windows, strict=True, quiet=True) as recorder:
            for step in range(STEPS):
                if step == 3:
                    model[2].requires_grad_(True)
                    optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.01, "weight_decay": 0.1})
                if step == 5:
                    model[0].requires_grad_(True)
                    optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.001})
                if step == 7:
                    model[4].requires_grad_(False)
                z = batch(step)
                loss = (model(z[0]) - z[1]).square().mean()
                loss.backward()
                recorder.observe(z, loss)
                iterates.append({name: p.detach().clone() for name, p in model.named_parameters()})
                gradients.append(
                    {
                        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                        for name, p in model.named_parameters()
                    }
                )
                optimizer.step()
                optimizer.zero_grad()
            iterates.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return iterates, gradients, [str(each.message) for each in caught]


def test_records_say_what_is_trained(tmp_path: Path) -> None:
    iterates, gradients, said = trained(tmp_path)
    assert said == []
    assert [group["lr"] for group in run_json(tmp_path)["optimizer"]["groups"]] == [0.1]
    middle, first, head = (tuple(f"{i}.{kind}" for kind in ("weight", "bias")) for i in (2, 0, 4))
    for step in range(STEPS):
        tensors, metadata = read(tmp_path, step)
        now: dict[str, int | None] = dict.fromkeys(middle, 1) if step >= 3 else {}
        now |= dict.fromkeys(first, 2) if step >= 5 else {}
        now |= dict.fromkeys(head) if step >= 7 else {}
        assert metadata.get("trained", {}) == now
        assert metadata["lr"] == [0.1, 0.01, 0.001][: 1 + (step >= 3) + (step >= 5)]
        taken = {name for name in tensors if name.startswith("grad/")}
        active = {*middle, *(first if step >= 5 else ()), *(head if step < 7 else ())} if step >= 3 else set(head)
        assert taken == {f"grad/{name}" for name in active}
        for name in active:
            assert torch.equal(tensors[f"grad/{name}"], gradients[step][name])
            assert torch.equal(tensors[f"param/{name}"], iterates[step][name])
    assert read(tmp_path, STEPS)[1]["tau"] == pytest.approx([0.1 * 9, 0.01 * 6, 0.001 * 4])


@pytest.mark.parametrize("every", [1, 2])
def test_distances_are_over_all_that_was_ever_trained(every: int, tmp_path: Path) -> None:
    iterates, gradients, _ = trained(tmp_path / "run", every=every)
    report = trajcheck.analyze(tmp_path / "run", objective="none", out=tmp_path / "out", quiet=True)
    x, g = [flat(each) for each in iterates], [flat(each) for each in gradients]
    towards, steps = report.references.set_index("step"), report.steps.set_index("step")
    for step in range(0, STEPS, every):
        error = x[step] - x[-1]
        assert towards["ref_dist"][step] == pytest.approx(np.linalg.norm(error), rel=1e-6)
        expected = error @ g[step] / np.linalg.norm(error) / np.linalg.norm(g[step])
        assert towards["cos"][step] == pytest.approx(expected, rel=1e-5)
        if step:
            assert steps["init_dist"][step] == pytest.approx(np.linalg.norm(x[step] - x[0]), rel=1e-6)
            assert steps["step_norm"][step] == pytest.approx(np.linalg.norm(x[step] - x[step - every]), rel=1e-6)
    assert report.summary["run"]["parameters"] == len(x[0])
    said = next(line for line in report.summary["warnings"] if "do not train all parameters of the run" in line)
    assert f"2.bias, 2.weight trained from step {3 + 3 % every} on" in said
    assert f"4.bias, 4.weight held fixed from step {7 + 7 % every} on" in said


def test_a_replay_is_of_the_loss_in_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    iterates, _, _ = trained(tmp_path / "run")
    report = trajcheck.analyze(
        tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:network", out=tmp_path / "out", quiet=True
    )
    steps, towards = report.steps.set_index("step"), report.references.set_index("step")
    assert steps["replay_grad_error"][: STEPS - 1].max() < 1e-5
    assert not report.incomplete
    model = network().double()
    last = {name: each.double() for name, each in iterates[-1].items()}
    for step in range(STEPS):
        here = {name: each.double().requires_grad_() for name, each in iterates[step].items()}
        z = [each.double() for each in batch(step)]
        value, there = (
            (torch.func.functional_call(model, point, (z[0],)) - z[1]).square().mean() for point in (here, last)
        )
        slope = torch.autograd.grad(value, list(here.values()))
        along = sum(float((s * (here[n].detach() - last[n])).sum()) for s, n in zip(slope, here, strict=True))
        gap = value.item() - there.item() - along
        assert towards["inst_gap"][step] == pytest.approx(gap, abs=1e-5)


def test_window_sums_of_what_was_not_trained_are_zero(tmp_path: Path) -> None:
    iterates, gradients, _ = trained(tmp_path / "run", windows=True)
    report = trajcheck.analyze(tmp_path / "run", objective="none", out=tmp_path / "out", quiet=True)
    towards = report.references.set_index("step")
    total = 0.0
    for step in range(1, STEPS + 1):
        before = flat(gradients[step - 1]) @ (flat(iterates[step - 1]) - flat(iterates[-1]))
        total += before
        assert towards["window_num"][step] == pytest.approx(total, rel=1e-4)


def test_a_resumed_job_goes_on_with_what_is_trained_by_then(tmp_path: Path) -> None:
    iterates, _, _ = trained(tmp_path)
    model = network()
    model.load_state_dict(iterates[-1])
    for layer in (model[0], model[2]):
        layer.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(tmp_path, model, optimizer, every=1, start_step=STEPS, quiet=True, strict=True) as recorder:
        z = batch(STEPS)
        loss = (model(z[0]) - z[1]).square().mean()
        loss.backward()
        recorder.observe(z, loss)
        optimizer.step()
    trained_then = read(tmp_path, STEPS)[1]["trained"]
    assert trained_then == {f"{i}.{kind}": 0 for i in (0, 2) for kind in ("weight", "bias")}

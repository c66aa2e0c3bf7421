"""Loops that write their updates themselves: recorded by a Recorder without an optimizer that is told of each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import read, recorded_steps, run_json
from torch import nn
from torch.nn import functional as F

import trajcheck
from trajcheck.errors import RecorderError

STEPS = 6

OBJECTIVE = """
from torch import nn
from torch.nn import functional as F

def fit():
    return nn.Linear(3, 1), lambda model, batch: F.smooth_l1_loss(model(batch[0]), batch[1])
"""


def loop(recorder_of: Any, seen: list[Any] | None) -> nn.Module:
    """Annealed rate, clipping, an update through .data."""
    torch.manual_seed(8)
    model, lr = nn.Linear(3, 1), 0.5
    recorder = recorder_of(model)
    for step in range(STEPS):
        if step == 3:
            lr /= 4
        inputs, targets = torch.randn(8, 3), torch.randn(8, 1)
        model.zero_grad()
        loss = F.smooth_l1_loss(model(inputs), targets)
        loss.backward()
        if seen is not None:
            seen.append((copy.deepcopy(model), (inputs, targets), lr))
        if recorder is None:
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        else:
            recorder.observe((inputs, targets), loss)
            recorder.clip_grad_norm_(0.2)
        if recorder is None:
            for p in model.parameters():
                p.data.add_(p.grad, alpha=-lr)  # type: ignore[arg-type]
        else:
            with recorder.update(lr=lr):
                for p in model.parameters():
                    p.data.add_(p.grad, alpha=-lr)  # type: ignore[arg-type]
    if recorder is not None:
        recorder.close()
    return model


@pytest.mark.parametrize("every", [1, 2])
def test_updates_that_the_recorder_is_told_of(every: int, tmp_path: Path) -> None:
    seen: list[Any] = []
    options: dict[str, Any] = {"every": every, "strict": True, "quiet": True, "windows": True}
    trained = loop(lambda model: trajcheck.Recorder(tmp_path / "run", model, None, **options), seen)
    untouched = loop(lambda model: None, None)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), untouched.parameters(), strict=True))
    assert recorded_steps(tmp_path / "run") == [*range(0, STEPS, every), STEPS]
    assert run_json(tmp_path / "run")["optimizer"]["name"] is None
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    report = trajcheck.analyze(tmp_path / "run", objective=f"{tmp_path / 'objective.py'}:fit", out=tmp_path / "report")
    steps, towards = report.steps.set_index("step"), report.references.set_index("step")
    end = torch.cat([p.detach().double().flatten() for p in trained.parameters()])
    tau = 0.0
    for step, (model, batch, lr) in enumerate(seen):
        if step % every == 0:
            tensors, metadata = read(tmp_path / "run", step)
            assert metadata["lr"] == [lr] and metadata["tau"] == [tau] and "omitted" not in metadata
            wide = copy.deepcopy(model).double()
            loss = F.smooth_l1_loss(wide(batch[0].double()), batch[1].double())
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(wide.parameters()))])
            names = [name for name, _ in model.named_parameters()]
            recorded = torch.cat([tensors[f"grad/{name}"].double().flatten() for name in names])
            assert torch.allclose(recorded, gradient * min(1.0, 0.2 / float(gradient.norm())), rtol=1e-4, atol=1e-6)
            assert all(torch.equal(tensors[f"param/{name}"], p) for name, p in model.named_parameters())
            assert metadata["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
            here = torch.cat([p.detach().double().flatten() for p in model.parameters()])
            cosine = gradient @ (here - end) / (gradient.norm() * (here - end).norm())
            assert towards["cos"][step] == pytest.approx(float(cosine), abs=1e-4)
            assert steps["replay_grad_error"][step] < 1e-4
        tau += lr
    tensors, _ = read(tmp_path / "run", STEPS)
    assert all(torch.equal(tensors[f"param/{name}"], p) for name, p in trained.named_parameters())


def test_an_update_is_told_to_a_recorder_without_an_optimizer_alone(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        trajcheck.Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True) as recorder,
        pytest.raises(RecorderError, match=r"sees the steps of SGD.*given None as its optimizer"),
        recorder.update(lr=0.1),
    ):
        pass
    with pytest.raises(RecorderError, match="expected a model with parameters that require a gradient"):
        trajcheck.Recorder(tmp_path / "none", nn.Tanh(), None)


def test_a_loop_that_forgets_to_tell(tmp_path: Path) -> None:
    torch.manual_seed(9)
    model = nn.Linear(3, 1)
    with (
        pytest.warns(RuntimeWarning, match=r"no update was told of.*with recorder\.update\(lr=\.\.\.\):"),
        trajcheck.Recorder(tmp_path / "run", model, None, every=1, quiet=True) as recorder,
    ):
        inputs = torch.randn(4, 3)
        loss = model(inputs).square().mean()
        loss.backward()
        recorder.observe(inputs, loss)


def test_record_says_what_it_saw_and_how_to_go_on(tmp_path: Path) -> None:
    with (
        pytest.warns(
            RuntimeWarning,
            match=r"no optimizer made a step, so nothing was recorded\. There were 6 backward passes, and 2 of the 2 "
            r"parameters of Linear changed, so the loop writes its updates itself\. Record it by "
            r"trajcheck\.Recorder\(path, model, None\), and put `with recorder\.update\(lr=\.\.\.\):`",
        ),
        trajcheck.record(tmp_path / "run", every=1, quiet=True),
    ):
        loop(lambda model: None, None)
    before = torch.autograd.backward
    with (
        pytest.warns(RuntimeWarning, match="1 backward passes were made, and no parameters moved"),
        trajcheck.record(tmp_path / "other", every=1, quiet=True),
    ):
        nn.Linear(2, 1)(torch.ones(1, 2)).sum().backward()
    assert torch.autograd.backward is before

"""The Recorder exports the loss at the first recorded batch; training is untouched."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_runs import record, seeded
from loops import batch_of, loss_of, network, recorded_steps, sgd
from replay_exported import sample_of, stored
from torch import Tensor, nn

from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective
from trajcheck.recording import export as recorder_export
from trajcheck.recording.recorder import Recorder


class Counted(nn.Module):
    """Counts its calls, and has a part in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.frozen_norm = network(), nn.BatchNorm1d(3).eval()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.frozen_norm(self.body(x))


def trained(folder: Path | None, objective: Any, seen: list[Any]) -> tuple[Any, ...]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = Counted()
    optimizer = sgd(model)
    recorder = None
    if folder is not None:
        recorder = Recorder(folder, model, optimizer, objective=objective, every=2, strict=True, quiet=True)
    for step in range(5):
        batch = batch_of(step)
        loss = loss_of(model, batch)
        loss.backward()
        if recorder is not None:
            recorder.observe(batch, loss)
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        modes = [m.training for m in model.modules()]
        states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
        hooks = [len(m._forward_pre_hooks) for m in model.modules()] if step else []
        seen.append((gradients, buffers, modes, states, batch, loss.detach(), model.calls, hooks, set(vars(model))))
        optimizer.step()
        optimizer.zero_grad()
    if recorder is not None:
        recorder.close()
    return model, model.state_dict()


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [part for key in value for part in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [part for item in value for part in flat(item)]
    return [value]


def test_training_is_untouched(tmp_path: Path) -> None:
    with_it: list[Any] = []
    without: list[Any] = []
    _, state = trained(tmp_path / "a", loss_of, with_it)
    _, plain = trained(tmp_path / "b", None, without)
    assert (tmp_path / "a" / "objective.json").exists() and not (tmp_path / "b" / "objective.json").exists()
    pairs = zip(flat([with_it, state]), flat([without, plain]), strict=True)
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def test_nothing_is_done_after_the_first_recorded_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(torch.export, "export")
    count(recorder_export, "_export")
    loss_calls: list[int] = []

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        loss_calls.append(1)
        return loss_of(model, batch)

    record(tmp_path / "run", network(), loss_fn, [batch_of(step) for step in range(6)], every=2)
    assert calls == ["_export", "export"]
    assert len(loss_calls) == 7


def test_a_resumed_run_keeps_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    model = record(folder, network(), loss_of, [batch_of(0), batch_of(1)])
    before = {path: path.read_bytes() for path in folder.glob("objective.*")}
    record(folder, model, loss_of, [batch_of(2)], start_step=2)
    assert recorded_steps(folder) == [0, 1, 2, 3]
    assert {path: path.read_bytes() for path in folder.iterdir() if "objective" in path.name} == before


def test_gradient_accumulation_checks_the_first_micro_batch(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, loss_of, every=1, strict=True, quiet=True) as recorder:
        for part in range(3):
            loss = loss_of(model, batch_of(part))
            (loss / 3).backward()
            recorder.observe(batch_of(part), loss, weight=1 / 3)
        optimizer.step()
    here = load_objective("run", run=tmp_path, device="cpu")
    assert "gives its reference loss" in here.note
    loss, gradient = here.loss_and_gradient(stored(tmp_path, 0, "param"), sample_of(tmp_path, 0))
    for name, recorded in stored(tmp_path, 0, "grad").items():
        torch.testing.assert_close(gradient[name], recorded, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models(tmp_path: Path, wrap: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    record(tmp_path, wrap(model), loss_of, [batch_of(0)])
    here = load_objective("run", run=tmp_path, device="cpu")
    assert here.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert float(here.loss(stored(tmp_path, 0, "param"), sample_of(tmp_path, 0))) > 0
    torch._dynamo.reset()


def test_autocast_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)))

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_autocast_enabled("cpu")):
            return loss_of(model, batch)

    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, loss_fn, every=1, strict=True) as recorder, torch.autocast("cpu"):
        loss = loss_fn(model, batch_of(0))
        loss.backward()
        recorder.observe(batch_of(0), loss)
        optimizer.step()
    said = capsys.readouterr().err
    assert "without autocast, as it is replayed" in said
    here = load_objective("run", run=tmp_path, device="cpu")
    z = sample_of(tmp_path, 0)
    expected = Objective(model, loss_of).loss(stored(tmp_path, 0, "param"), z)
    assert torch.equal(here.loss(stored(tmp_path, 0, "param"), z), expected)
    assert abs(float(expected) - float(loss.detach())) > 1e-6

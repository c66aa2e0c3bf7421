"""Small training loops to record, and step files read back with safetensors alone."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.recording.recorder import Recorder
from trajcheck.recording.run import background_writer as record_writer


def waiting_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written before the event is set."""
    write, disk = record_writer.write_step, threading.Event()

    def write_step(*arguments: Any) -> Path:
        disk.wait(60)
        return write(*arguments)

    monkeypatch.setattr(record_writer, "write_step", write_step)
    return disk


def network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 3))


def sgd(model: nn.Module, **options: Any) -> Any:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.125, **options})


def batch_of(step: int, size: int = 6) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(1000 + step)
    return torch.randn(size, 4, generator=stream), torch.randint(3, (size,), generator=stream)


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range | int,
    recorder: Recorder | None = None,
    after: Callable[[int], Any] = lambda step: None,
) -> None:
    """The plain loop."""
    for step in range(steps) if isinstance(steps, int) else steps:
        batch = batch_of(step)
        loss = loss_of(model, batch)
        loss.backward()
        if recorder is not None:
            recorder.observe(batch, loss)
        optimizer.step()
        optimizer.zero_grad()
        after(step)


def recorded_steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:-12]) for path in folder.glob("step-*.safetensors"))


def read(folder: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of one step file."""
    with safe_open(folder / f"step-{step:09d}.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["trajcheck"])


def run_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def assert_holds(tensors: dict[str, Tensor], kind: str, expected: dict[str, Tensor]) -> None:
    """The file's tensors of a kind are exactly these."""
    found = {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def trajectory(make: Any, folder: Path | None, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """All iterates and generator states of a run, recorded or not."""
    model = network()
    optimizer = make(model)
    seen: list[Tensor] = []
    states = [torch.get_rng_state()]

    def note(step: int) -> None:
        seen.extend(weights(model).values())
        seen.extend(buffer.clone() for buffer in model.buffers())
        states.append(torch.get_rng_state())

    random.seed(3)
    np.random.seed(3)
    if folder is None:
        train(model, optimizer, 12, after=note)
    else:
        with Recorder(folder, model, optimizer, strict=True, quiet=True, **options) as recorder:
            train(model, optimizer, 12, recorder, after=note)
    return seen, [*states, torch.tensor([random.random(), np.random.random()])]

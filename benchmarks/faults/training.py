"""A small training that saves checkpoints and goes on from the last: the same numbers however often it is killed."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trajcheck import Budget, Pairs, Recorder

STEPS, EVERY_CHECKPOINT = 30, 7

#: How the training is recorded. `full_batch` trains on one batch alone; `probe` stores batches set aside.
RECORDINGS: Mapping[str, dict[str, Any]] = {
    "every step": {"every": 1},
    "every step, windows": {"every": 1, "windows": True},
    "pairs, windows": {"schedule": Pairs(4), "windows": True},
    "thinned to a budget": {"schedule": Budget(bytes=60_000), "overhead": None},
    "full batch, probe": {"every": 1, "full_batch": True, "probe": True},
}


class Net(nn.Module):
    """With dropout, running statistics and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.2), nn.Tanh(), nn.Linear(12, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.frozen(x))


def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=stream), torch.randint(3, (8,), generator=stream)


def train(
    folder: Path,
    checkpoint: Path,
    recording: str,
    *,
    progress: mmap.mmap | None = None,
    before: Callable[[int], object] = lambda step: None,
    strict: bool = False,
) -> dict[str, torch.Tensor]:
    """Train to the end, from the checkpoint if there is one; the final parameters.

    `progress` is told the number of the step that begins, and so is `before`.
    """
    options = dict(RECORDINGS[recording])
    full_batch, probe = options.pop("full_batch", False), options.pop("probe", False)
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    saved: dict[str, Any] = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else {"step": 0}
    if saved["step"]:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
    recorder = Recorder(folder, model, optimizer, start_step=saved["step"], quiet=True, strict=strict, **options)
    with recorder:
        if saved["step"]:
            recorder.load_state_dict(saved["recorder"])
        if probe:
            recorder.probe([batch_of(1000), batch_of(1001)])
        for step in range(saved["step"], STEPS):
            before(step)
            if progress is not None:
                progress[:4] = step.to_bytes(4, "little")
            inputs, targets = batch_of(0 if full_batch else step)
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            recorder.observe((inputs, targets), loss)
            optimizer.step()
            optimizer.zero_grad()
            if (step + 1) % EVERY_CHECKPOINT == 0:
                _save(checkpoint, model, optimizer, recorder, step + 1)
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def _save(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recorder: Recorder, step: int) -> None:
    """Whole or not at all; not at all where the disk is full."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "recorder": recorder.state_dict(),
    }
    data = io.BytesIO()
    torch.save(state, data)
    temporary = checkpoint.with_suffix(".new")
    try:
        temporary.write_bytes(data.getvalue())
        os.replace(temporary, checkpoint)
    except OSError:
        temporary.unlink(missing_ok=True)

"""The Recorder on a device: what it stores against plain copies at every step, window sums, and that it never waits."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from benchmarks.gpu.device import autocast, keep_busy, stream_of_its_own, wait, waiting_is_an_error
from benchmarks.gpu.sizes import Shape, Sizes
from benchmarks.models import gpt, gpt_batch
from benchmarks.table import Row
from trajcheck import Recorder

Tensors = dict[str, torch.Tensor]


class Training:
    """A GPT on the device with AdamW, under bfloat16 autocast."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device, self.shape = device, shape
        self.model, self.loss = gpt(shape.layers, shape.width, shape.vocabulary, shape.length)
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.batch = tuple(part.to(device) for part in gpt_batch(shape.batch, shape.vocabulary, shape.length))

    def forward_and_backward(self) -> torch.Tensor:
        with autocast(self.device, torch.bfloat16):
            loss: torch.Tensor = self.loss(self.model, self.batch)
        loss.backward()
        return loss

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def copies(self) -> tuple[Tensors, Tensors]:
        """Of x_t and g_t, on the device and in its stream."""
        named = list(self.model.named_parameters())
        return (
            {name: p.detach().clone() for name, p in named},
            {name: p.grad.clone() for name, p in named if p.grad is not None},
        )


def read(folder: Path, step: int) -> tuple[Tensors, dict[str, Any]]:
    with safe_open(folder / f"step-{step:09d}.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["trajcheck"])


def recorded(folder: Path, device: torch.device, sizes: Sizes) -> list[Row]:
    """In a stream of its own, with the device kept behind, so that a copy that does not wait for its tensor, or that is
    overtaken by the optimizer, holds other bits."""
    training, kept = Training(sizes.small, device), []
    with (
        stream_of_its_own(device),
        Recorder(
            folder, training.model, training.optimizer, every=1, windows=True, quiet=True, strict=True
        ) as recorder,
    ):
        for _ in range(sizes.training):
            keep_busy(device)
            loss = training.forward_and_backward()
            recorder.observe(training.batch, loss)
            kept.append((*training.copies(), loss.detach().clone()))
            keep_busy(device)
            training.update()
    wait(device)
    different, dtypes = 0, set()
    window, scale = 0.0, 0.0
    for step, (x, g, loss) in enumerate(kept):
        tensors, metadata = read(folder, step)
        known = {**{f"param/{n}": t for n, t in x.items()}, **{f"grad/{n}": t for n, t in g.items()}}
        different += sum(not torch.equal(tensors[name], tensor.cpu()) for name, tensor in known.items())
        different += abs(metadata["loss"] - loss.item()) > 1e-6 * abs(loss.item())
        dtypes.add(metadata.get("autocast"))
        if step:  # the window of one step
            before = kept[step - 1][1]
            window = max(window, *(_distance(tensors[f"window/{n}"], t) for n, t in before.items()))
            squares = sum(float(t.double().square().sum()) for t in before.values())
            scale = max(scale, abs(metadata["window"]["grad_sq_sum"] - squares) / squares)
    return [
        Row("recorder: tensors that are not the plain copy, every step", float(different), target=0.0),
        Row("recorder: steps whose autocast is not known", float(dtypes != {"bfloat16"}), target=0.0),
        Row("window sums of one step against its gradient", window, target=0.0),
        Row("window sums of squares, relative", scale, target=1e-12),
    ]


def windows(folder: Path, device: torch.device, sizes: Sizes) -> list[Row]:
    """Of all steps between two records, against sums in double; and no step in between waits for the device."""
    training = Training(sizes.small, device)
    every = sizes.training
    warm = every // 2
    sums: Tensors = {}
    made = Recorder(folder, training.model, training.optimizer, every=every, windows=True, quiet=True, strict=True)
    with made as recorder:
        for step in range(every + 1):
            with waiting_is_an_error(device) if warm <= step < every else nullcontext():
                loss = training.forward_and_backward()
                recorder.observe(training.batch, loss)
                if step < every:
                    for name, g in training.copies()[1].items():
                        sums[name] = g.double() + sums.get(name, 0.0)
                training.update()
    tensors, metadata = read(folder, every)
    steps = metadata["window"]["steps"]
    error = max(_distance(tensors[f"window/{name}"].double(), total) for name, total in sums.items())
    size = max(float(total.abs().max()) for total in sums.values())
    return [
        Row(f"window sums of {steps} steps against double, in units of the largest", error / size, target=1e-6),
        Row(f"steps of {every - warm} that wait for the device, with windows and no record", 0.0, target=0.0),
    ]


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other.cpu()).abs().max())

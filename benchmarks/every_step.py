"""What following every step costs, where the step is recorded by nobody and sums of windows are not wanted."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.table import Row
from benchmarks.timing import Spread
from trajcheck import Recorder
from trajcheck.recording.schedule.time_spent import Clock

STEPS = 100  # of a round, of about a millisecond each


def _networks() -> dict[str, nn.Module]:
    narrow = [nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()) for _ in range(20)]
    return {
        "MLP of 6 tensors": nn.Sequential(
            nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 32)
        ),
        "20 layers of 80 small tensors": nn.Sequential(nn.Linear(64, 32), *narrow),
    }


def every_step_rows(folder: Path, clock: Clock, rounds: int) -> list[Row]:
    """Time in the Recorder at steps that are not recorded: microseconds, and as a share of a small step."""
    rows = []
    for title, model in _networks().items():
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        x, y = torch.randn(128, 64), torch.randint(10, (128,))
        seconds, shares = [], []
        with Recorder(
            folder / title.replace(" ", "-"), model, optimizer, every=10**9, quiet=True, strict=True
        ) as recorder:
            spent = recorder.spent
            spent.clock = clock
            for number in range(rounds + 1):
                before = spent.every_step, spent.training
                for _ in range(STEPS):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(x), y)
                    loss.backward()
                    recorder.observe((x, y), loss)
                    optimizer.step()
                if number:
                    inside, training = spent.every_step - before[0], spent.training - before[1]
                    seconds.append(1e6 * inside / STEPS)
                    shares.append(inside / training)
        step = 1e3 * statistics.median(s / share / 1e6 for s, share in zip(seconds, shares, strict=True))
        rows.append(Row(f"a step that is not recorded: {title}", Spread.of(seconds), "microseconds"))
        rows.append(Row(f"... as a share of a step of {step:.2g} ms", Spread.of(shares)))
    return rows

"""What it costs to know frozen parameters and buffers by content, and to keep modes and settings, at every record.

A frozen GPT with tables of positions and masks as buffers, and trained adapters: the records are small, and what has to
be known is large.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.small_gpt import SmallGPT
from benchmarks.table import Row
from benchmarks.timing import Spread
from trajcheck.recording.model import surroundings
from trajcheck.recording.model.surroundings import Surroundings
from trajcheck.recording.run.group_settings import GroupSettings
from trajcheck.recording.schedule.time_spent import Clock
from trajcheck.recording.step import sample_state

TARGET = 0.01
RANK = 8  # of an adapter

STEPS = 40  # of a round at least: the first record and the last read all contents wholly

#: What is measured, by the object that it is looked up in; and what is stored, which is in it and is no part of it.
PARTS: tuple[tuple[Any, str], ...] = (
    (Surroundings, "capture"),
    (sample_state, "modes_of"),
    (GroupSettings, "differing"),
)
COPIES = (surroundings, "to_host")


class Adapted(SmallGPT):
    """A frozen GPT whose blocks are followed by trained adapters, with a mask a block and a table of positions."""

    def __init__(self, layers: int, width: int, length: int, vocabulary: int) -> None:
        super().__init__(layers, width, length, vocabulary)
        self.requires_grad_(False)
        self.adapters = nn.ModuleList(
            nn.Sequential(nn.Linear(width, RANK), nn.ReLU(), nn.Linear(RANK, width)) for _ in range(layers)
        )
        self.register_buffer("table", torch.randn(16 * length, width), persistent=False)
        for number, block in enumerate(self.blocks):
            mask = torch.ones(4 * length, 4 * length, dtype=torch.bool).tril()
            block.register_buffer(f"mask_{number}", mask, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.get_buffer("table")[: tokens.shape[1]]
        for block, adapter in zip(self.blocks, self.adapters, strict=True):
            x = block(x)
            x = x + adapter(x)
        return self.norm(x) @ self.tokens.weight.T


@contextmanager
def _measured(clock: Clock, seconds: list[float]) -> Iterator[None]:
    """The time that the parts take, added to the last of `seconds`."""

    def timed(function: Callable[..., Any], sign: int) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = clock()
            result = function(*args, **options)
            seconds[-1] += sign * (clock() - start)
            return result

        return call

    with ExitStack() as stack:
        for owner, name in (*PARTS, COPIES):
            sign = -1 if (owner, name) == COPIES else 1
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), sign)))
        yield


def content_rows(
    timed: Callable[[int, dict[str, Any], list[float]], float], clock: Clock, steps: int, rounds: int, on: str
) -> list[Row]:
    """`timed` trains and records so many steps with options; its last argument takes the recorder's share.

    The parts are timed where they are called, and compared with all the time of the same training: what slows the
    machine slows both, and nothing is subtracted.
    """
    rows = []
    for title, options in (("every step", {"every": 1}), ("every=10", {"every": 10})):
        seconds: list[float] = []
        whole: list[float] = []  # from making the Recorder to closing it
        for number in range(rounds + 1):
            seconds.append(0.0)
            with _measured(clock, seconds):
                start = clock()
                timed(max(steps, STEPS), options, [])
                whole.append(clock() - start)
            if not number:  # to warm up
                seconds.clear()
                whole.clear()
        shares = [part / all_of_it for part, all_of_it in zip(seconds, whole, strict=True)]
        error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
        name = f"{on}: {title}: contents, modes and settings"
        rows.append(Row(f"{name}: share of training", Spread.of(shares), target=TARGET, note=f"+- {error:.2g}"))
    return rows

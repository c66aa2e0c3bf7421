"""Rows of numbers on their way from devices to host memory, some at a time, with nobody waiting for a device.

A row's numbers are floats, or scalars on a device. When `BLOCK` rows are there, their scalars are copied, and the rows
before, whose copies ended long ago, are handed on: so no more than 2 `BLOCK` of them are ever on their way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trajcheck.recording.sums.squares import Number

#: A killed job loses at most two of them: 64 steps.
BLOCK = 32

Row = tuple[Number, Number, Number, Number]


@dataclass
class _Copy:
    """Scalars of one device, and which numbers of which rows they are."""

    places: list[tuple[int, int]]
    values: torch.Tensor
    event: torch.cuda.Event | None


@dataclass
class _Block:
    first: int
    rows: list[list[Number]]
    copies: list[_Copy]

    def numbers(self) -> list[list[float]]:
        """Waits for the copies. What is not finite is unknown."""
        for copy in self.copies:
            if copy.event is not None:
                copy.event.synchronize()
            for (row, column), value in zip(copy.places, copy.values.tolist(), strict=True):
                self.rows[row][column] = value
        return [[value if math.isfinite(value) else math.nan for value in map(float, row)] for row in self.rows]


class Rows:
    """`write(step, rows)` gets the rows in order, the first being that of `step`."""

    def __init__(self, write: Callable[[int, Sequence[Sequence[float]]], None]) -> None:
        self._write = write
        self._first, self._rows = 0, list[list[Number]]()
        self._sent: list[_Block] = []

    def add(self, step: int, row: Row) -> None:
        """Of the step after the last one's, or a later one: then nothing is known of those between."""
        if self._rows and step != self._first + len(self._rows):
            self._send()
        if not self._rows:
            self._first = step
        self._rows.append(list(row))
        if len(self._rows) >= BLOCK:
            self._send()

    def flush(self) -> None:
        """Hand on all there are. Waits for devices."""
        if self._rows:
            self._send()
        self._hand_on(0)

    def _send(self) -> None:
        """Copies of these rows begin, and those of the rows before are taken."""
        copies = _copies(self._rows)
        self._sent.append(_Block(self._first, self._rows, copies))
        self._rows = []
        self._hand_on(1 if copies else 0)

    def _hand_on(self, left: int) -> None:
        while len(self._sent) > left:
            block = self._sent[0]
            self._write(block.first, block.numbers())
            self._sent.pop(0)


def _copies(rows: Sequence[Sequence[Number]]) -> list[_Copy]:
    found: dict[torch.device, list[tuple[int, int]]] = {}
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            if isinstance(value, torch.Tensor):
                found.setdefault(value.device, []).append((number, column))
    copies = []
    for device, places in found.items():
        scalars = [rows[row][column] for row, column in places]
        together = torch.stack([s.detach().reshape(()).double() for s in scalars if isinstance(s, torch.Tensor)])
        event = None
        if device.type == "cuda":
            host = torch.empty(len(places), dtype=torch.float64, pin_memory=True)
            together = host.copy_(together, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
        copies.append(_Copy(places, together, event))
    return copies

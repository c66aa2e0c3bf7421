"""The sums over the steps between two records, where they are wanted: what each step adds, and where a window ends."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import torch

from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.recording.step.vectors import StepVectors
from trajcheck.recording.step.window_sums import Factor, Taken, WindowSums


class SummedSteps:
    """Of the window that goes on, and of the one that ended at the step that is being made, until it is recorded;
    `sums` None: none are wanted, and nothing here does anything."""

    def __init__(self, sums: WindowSums | None, vectors: StepVectors, spent: TimeSpent) -> None:
        self._sums, self._vectors, self._spent = sums, vectors, spent
        self._ended: Taken = {}, {}

    @property
    def wanted(self) -> bool:
        return self._sums is not None

    def add(self, optimizer: torch.optim.Optimizer, factors: Sequence[Factor] | None) -> None:
        """Add g_t: what .grad holds, without the loss scale that a fused step has yet to divide out, and without
        `factors`. None: it is not known to be g_t."""
        if self._sums is None:
            return
        if factors is None:
            self._sums.void()
            return
        scale = getattr(optimizer, "grad_scale", None)
        found_inf = getattr(optimizer, "found_inf", None)
        with self._spent.for_every_step():
            self._sums.add([*factors] if scale is None else [*factors, scale], found_inf)

    def check_rest(self, groups: Container[int]) -> None:
        """The first of several optimizers has added g_t of all: the gradients of the others must not change."""
        if self._sums is not None:
            self._sums.check_rest(groups)

    def hold(self) -> None:
        """Gradients will be made inside the step."""
        if self._sums is not None:
            self._sums.hold()

    def count(self, loss: Factor | None, found_inf: Any) -> None:
        """A step was made."""
        if self._sums is not None:
            self._sums.count(loss, found_inf)

    def skip(self) -> None:
        """A loss scaler has skipped it."""
        if self._sums is not None:
            self._sums.skip()

    def turn(self, step: int) -> None:
        """The window ends at the record of this step, and the next begins."""
        if self._sums is not None and self._sums.start != step:  # a step() may call its parent's
            taken = self._vectors.take_window(self._sums, step)
            self._ended = taken if taken[1] else self._ended
            self._sums.restart(step)

    def end(self, step: int) -> None:
        """It ends with the run."""
        if self._sums is not None:
            self._ended = self._vectors.take_window(self._sums, step)

    def follow(self, parameters: Sequence[Parameter], step: int, *, recorded: bool) -> None:
        """These parameters are trained from this step on: if it is recorded, the sums of those before end there."""
        if self._sums is not None:
            if recorded:
                self.end(step)
            self._sums = WindowSums(parameters)

    def take(self) -> Taken:
        """What ended at the step that is recorded."""
        ended, self._ended = self._ended, ({}, {})
        return ended

    def release(self) -> None:
        self._sums = None
        self._ended = {}, {}

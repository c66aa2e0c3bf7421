"""Where the time of the training thread goes: into records, into what every step costs, into training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Clock = Callable[[], float]

PAUSE = 10  # a step counts as training for at most so many times the mean of those before it


class TimeSpent:
    """Seconds so far, without the first step and its one-off work (folders, buffers).

    records     in the recorder at recorded steps, waiting for the disk included; and of a CUDA device, copying them
    every_step  in the recorder at all others, and in window sums at all
    export      in exporting the loss program, once
    training    outside the recorder, from one step to the next. Of a pause (an evaluation, a notebook that waits), no
                more than ten steps count

    A step is any number of parts between `enter()` and `leave()`, and `end_step()` in the last of them.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self._records = self.every_step = self.training = self.export = 0.0
        self.steps = self.recorded_steps = 0
        self._stalled = 0.0
        self._entered: float | None = None
        self._inside = self._apart = 0.0  # of the step that is being made
        self._ended: float | None = None  # when the step before did

    def __repr__(self) -> str:
        named = {name: getattr(self, name) for name in ("records", "every_step", "export", "training")}
        return f"TimeSpent({', '.join(f'{name}={seconds:.3f}' for name, seconds in named.items())})"

    @property
    def records(self) -> float:
        return self._records + self._stalled

    @property
    def share(self) -> float:
        """Time in the recorder as a share of training; 0 before the second step."""
        return (self.records + self.every_step + self.export) / self.training if self.training > 0 else 0.0

    def enter(self) -> bool:
        """A part of the recorder's work begins. False: inside another one (exporting the loss runs the model), where
        it counts; then nobody has to `leave()`."""
        if self._entered is not None:
            return False
        self._entered = self.clock()
        return True

    def leave(self) -> None:
        """It is over."""
        assert self._entered is not None
        self._inside += self.clock() - self._entered
        self._entered = None

    @contextmanager
    def of_training(self) -> Iterator[None]:
        """A part of it that training would have waited for as well: what a device still has to do."""
        began = self.clock()
        try:
            yield
        finally:
            self._inside -= self.clock() - began

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """A part of it that exports the loss program: neither a record's nor the training's."""
        began = self.clock()
        try:
            yield
        finally:
            seconds = self.clock() - began
            self.export += seconds
            self._inside -= seconds
            if self._ended is not None:
                self._ended += seconds

    @contextmanager
    def for_every_step(self) -> Iterator[None]:
        """A part of it that recorded and other steps need alike."""
        began = self.clock()
        try:
            yield
        finally:
            self.at_every_step(self.clock() - began)

    def at_every_step(self, seconds: float) -> None:
        """Such a part took so long."""
        self._apart += seconds

    def stalled(self, seconds: float) -> None:
        """A device was busy copying a record for so long; called by the writer's thread alone."""
        self._stalled += seconds

    def end_step(self, *, recorded: bool) -> None:
        now = self.clock()
        inside = self._inside + (0.0 if self._entered is None else now - self._entered)
        if self._ended is not None:
            self._count(now - self._ended - inside, inside, recorded)
        self._ended, self._inside, self._apart = now, 0.0, 0.0
        if self._entered is not None:
            self._entered = now

    def _count(self, training: float, inside: float, recorded: bool) -> None:
        usual = self.training / self.steps if self.steps else training
        self.training += min(training, PAUSE * usual)
        self.steps += 1
        apart = min(self._apart, inside) if recorded else inside
        self._records += inside - apart
        self.recorded_steps += recorded
        self.every_step += apart

"""What is taken of every step, recorded or not, for every-step.f64.

A step's numbers are complete when the next one begins: only then it is known whether something else than the optimizer
changed the parameters meanwhile, so that what the update did leads nowhere. Of a large model in the processor's memory
the update's length is summed in a thread of its own, while training goes on: the parameters stay as they are until the
next step, or what changed them is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from trajcheck.recording.every_step.log_file import EveryStepFile
from trajcheck.recording.every_step.rows import Rows
from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.sums.squares import Number, StepSquares

#: Elements from which on a thread of its own is quicker for the training thread than doing it there and then.
ASIDE = 1 << 20

Found = bool | torch.Tensor  # on a device: nobody has waited for it


class _Made(NamedTuple):
    """A step that was made; `moved` are the parts of the update's |x_{t+1} - x_t|^2."""

    step: int
    loss: Number
    rate: Number
    gradient: Number
    moved: Callable[[], list[Number] | None]


class EveryStep:
    """A step `begins`, its `gradients` are there, it is `made` or `skipped`. `open_file` is called once, before the
    first is written. Errors: OSError, and those of torch."""

    def __init__(
        self, parameters: Sequence[Parameter], open_file: Callable[[], EveryStepFile], *, alone: bool, whole: bool
    ) -> None:
        """`alone`: the losses that this process sees are of all samples; `whole`: it holds all of each parameter and
        gradient."""
        self._open, self._alone, self._whole = open_file, alone, whole
        self._file: EveryStepFile | None = None
        self._rows = Rows(self._write)
        self._aside: ThreadPoolExecutor | None = None
        self._made: _Made | None = None
        self._gradients: dict[int, list[Number]] = {}  # by the place of the optimizer that uses them
        self._stale = True  # whether the vector that is held is not x_t
        self._doubt: torch.Tensor | None = None  # whether it is not, as a device will tell
        self._begun = -1
        self.follow(parameters)

    def follow(self, parameters: Sequence[Parameter]) -> None:
        """These parameters from now on."""
        self._complete(False)
        self._squares = StepSquares(parameters)
        self._stale = True

    def begins(self, step: int, found: Found) -> None:
        """The parameters are x_t; `found`: whether something else changed them since the step before."""
        self._complete(found)
        self._doubt = found if isinstance(found, torch.Tensor) else None
        if self._whole and (self._stale or found is True or self._begun == step):  # one that failed begins again
            self._squares.begin()
            self._doubt = None
        self._stale, self._begun = False, step
        self._gradients = {}

    def gradients(self, place: int, groups: Container[int] | None, scale: torch.Tensor | None) -> None:
        """The optimizer at a place, of these parameter groups, or of all, comes: `.grad` holds g_t times `scale`."""
        if not self._whole:
            return
        squares = self._squares.gradients(groups)
        if scale is not None:
            divisor = scale.detach().reshape(()).double().square()
            squares = [
                each / (divisor.to(each.device) if isinstance(each, torch.Tensor) else divisor) for each in squares
            ]
        self._gradients[place] = squares

    def made(self, step: int, loss: Number | None, rates: Sequence[float] | None, skips: Any, *, used: bool) -> None:
        """The step was made at this loss (None: unknown) and these rates, unless `skips` is not zero; `used`: its
        gradient is known to be that of x_t, and all of it was used."""
        rate: Number = rates[0] if rates and len(set(rates)) == 1 else math.nan
        parts = [part for squares in self._gradients.values() for part in squares]
        gradient = _sum(parts) if used and self._gradients else math.nan
        value: Number = loss if self._alone and loss is not None else math.nan
        if skips is not None:
            skipped = skips.detach().reshape(()) > 0
            rate, gradient = _unless(skipped, rate, 0.0), _unless(skipped, gradient, math.nan)
        self._made = _Made(step, value, rate, gradient, self._moved() if self._whole else lambda: None)
        self._gradients = {}

    def skipped(self, step: int, loss: Number | None) -> None:
        """A loss scaler has skipped it: the parameters are as they were."""
        value: Number = loss if self._alone and loss is not None else math.nan
        self._made = _Made(step, value, 0.0, math.nan, lambda: [0.0])
        self._gradients = {}

    def ends(self, moved: bool) -> None:
        """No step comes after the last; `moved`: something else changed the parameters since."""
        self._complete(moved)
        self.flush()

    def flush(self) -> None:
        """Write all that is known, with the step that was made last. Waits for devices."""
        self._complete(False)
        self._rows.flush()
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Let go of everything; what is on its way is written where that can be."""
        try:
            self.flush()
        finally:
            if self._aside is not None:
                self._aside.shutdown()
            if self._file is not None:
                self._file.close(sync=False)
            self._aside = self._file = None

    def _moved(self) -> Callable[[], list[Number] | None]:
        aside = self._squares.on_processor >= ASIDE
        work = self._squares.moved(aside=aside)
        if not aside:
            found = work()
            return lambda: found
        if self._aside is None:
            self._aside = ThreadPoolExecutor(1, "trajcheck-every-step")
        return self._aside.submit(work).result

    def _complete(self, found: Found) -> None:
        """The step that was made last is over."""
        made, self._made = self._made, None
        if made is None:
            return
        parts = made.moved()
        moved: Number = math.nan if parts is None or found is True else _sum(parts)
        for doubt in (self._doubt, found):
            if isinstance(doubt, torch.Tensor):
                moved = _unless(doubt, moved, math.nan)
        self._rows.add(made.step, (made.loss, made.rate, made.gradient, moved))

    def _write(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        if self._file is None:
            self._file = self._open()
        self._file.append(step, rows)


def _sum(parts: Sequence[Number]) -> Number:
    if len(parts) == 1:
        return parts[0]
    total: Number = math.fsum(each for each in parts if not isinstance(each, torch.Tensor))
    for each in parts:
        if isinstance(each, torch.Tensor):
            total = each + (total.to(each.device) if isinstance(total, torch.Tensor) else total)
    return total


def _unless(flag: torch.Tensor, value: Number, otherwise: float) -> Number:
    """The value, and `otherwise` where the flag is set; on the value's device, if it has one."""
    if isinstance(value, torch.Tensor):
        return value.double().masked_fill(flag.to(value.device, non_blocking=True), otherwise)
    return torch.full((), value, dtype=torch.float64, device=flag.device).masked_fill(flag, otherwise)

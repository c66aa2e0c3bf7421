"""What a log says of a training, in the order of its steps, and from it a rate and a gradient's norm of every step.

Rows come as they stand in the log. Of one step several rows complete each other, as loss and rate may stand in two;
where both have a number the last one counts. A row that goes back is where a job was resumed: what was logged from its
step on before is of steps that the training did not keep, and goes.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

#: Steps from the first to the last of a log.
MOST_STEPS = 20_000_000
#: Of so many rows one may go back, and this many always.
ROWS_A_RESUME, RESUMES = 10, 3

NAMES = ("loss", "lr", "grad_norm")
LOSS, RATE, NORM = range(3)


class NoOrderError(ValueError):
    """The rows of a log are in no order."""


@dataclass
class Logged:
    """Steps, ascending, each with a loss, a rate and the norm of a gradient, NaN where that is not known. `notes` are
    what was decided about rows, in sentences."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: tuple[array[float], ...] = field(default_factory=lambda: (array("d"), array("d"), array("d")))
    rows: int = 0
    back: list[tuple[str, int, int]] = field(default_factory=list)  # where, to which step, how many steps went
    twice: int = 0
    not_finite: int = 0

    def add(self, where: str, step: int, row: tuple[float | None, float | None, float | None]) -> None:
        """A row: None is a blank, a number that is not finite as good as one."""
        if row == (None, None, None):
            return
        self.rows += 1
        self.not_finite += sum(value is not None and not math.isfinite(value) for value in row)
        known = [value if value is not None and math.isfinite(value) else math.nan for value in row]
        if self.steps and step < self.steps[-1]:
            place = bisect_left(self.steps, step)
            self.back.append((where, step, len(self.steps) - place))
            del self.steps[place:]
            for column in self.values:
                del column[place:]
        if self.steps and step == self.steps[-1]:
            for column, value in zip(self.values, known, strict=True):
                if value == value:
                    self.twice += column[-1] == column[-1] and column[-1] != value
                    column[-1] = value
            return
        self.steps.append(step)
        for column, value in zip(self.values, known, strict=True):
            column.append(value)

    def check_order(self) -> None:
        """Raise NoOrderError where more rows go back than jobs are resumed."""
        if len(self.back) > max(RESUMES, self.rows // ROWS_A_RESUME):
            where, step, _ = self.back[0]
            raise NoOrderError(
                f"{len(self.back)} of {self.rows} rows go back, first {where} to step {step}: expected rows in the "
                "order of their steps, which go back only where a job was resumed"
            )

    def notes(self) -> Iterator[str]:
        for where, step, gone in self.back[:RESUMES]:
            yield (
                f"{where} goes back to step {step}, as a resumed job does: {gone} steps logged before, from there on, "
                "were left out"
            )
        if len(self.back) > RESUMES:
            yield f"{len(self.back) - RESUMES} more rows go back likewise"
        if self.twice:
            yield f"{self.twice} numbers are logged twice for one step, and differ: the last one counts"
        if self.not_finite:
            yield f"{self.not_finite} logged numbers are NaN or infinite, and count as not known"


#: What is known of some steps: the steps [n], ascending, and a number of each [n].
Known = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FilledSteps:
    """Every step from `first` on to the last at which a rate and a gradient are known, with both: at steps that lack
    one the number of the nearest step that has it, of two equally near that of the earlier. `held` says of how many
    steps rates and squares were taken from another one; of a step of rate 0 its gradient counts for nothing."""

    first: int
    rates: np.ndarray
    squares: np.ndarray
    held: tuple[int, int]


def of_rows(logged: Logged, column: int) -> Known:
    """One of the columns, where it is known."""
    steps, values = np.array(logged.steps, np.int64), np.array(logged.values[column], np.float64)
    here = ~np.isnan(values)
    return steps[here], values[here]


def filled(rates: Known, squares: Known, first: int) -> FilledSteps:
    """From step `first` on. Raises ValueError, in words, where there is nothing to fill with, or too many steps."""
    for words, (steps, _) in (("rate", rates), ("norm of a gradient", squares)):
        if not len(steps):
            raise ValueError(f"no step has a finite {words}")
    count = min(int(rates[0][-1]), int(squares[0][-1])) - first + 1
    if count > MOST_STEPS:
        raise ValueError(f"{count:,} steps from the first to the last; expected {MOST_STEPS:,} at most")
    every = np.arange(first, first + count)
    eta, squared = (values[nearest(every, steps)] for steps, values in (rates, squares))
    held = ~np.isin(every, rates[0]), ~np.isin(every, squares[0]) & (eta > 0)
    return FilledSteps(first, eta, squared, (int(held[0].sum()), int(held[1].sum())))


def nearest(every: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of each step [n] the place of the nearest known one [m], both ascending; of two equally near the earlier's."""
    after = np.minimum(np.searchsorted(known, every), len(known) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(every - known[before]) <= np.abs(known[after] - every), before, after)

"""How many steps of a run each row of a table stands for, in sums and averages over the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Weights:
    """A row that carries a quantity stands for the steps that lie nearer to it than to any other row that carries it;
    of two equally near the earlier counts. So the weights of a quantity sum to its steps, whatever rows are there.

    `positions` [rows] are where the rows lie on the axis of steps: at t for what is of one point, in the middle of the
    chord for what is of a pair, NaN for rows that have none. Counted are the steps, or the middles of updates, at
    `first`, first + 1, ..., `count` of them: those at which the quantity can exist, and `more` where the last row
    carries it: some quantities do without the sample that a run's last iterate has not. The number is divided by `per`,
    the length of a chord.
    """

    positions: np.ndarray
    first: float
    count: int
    per: int = 1
    more: int = 0

    def of(self, carried: np.ndarray) -> np.ndarray:
        """w [rows] for a quantity that the rows marked in `carried` [rows] carry; 0 on the others."""
        result = np.zeros(len(self.positions))
        places = np.flatnonzero(carried & np.isfinite(self.positions))
        if not len(places):
            return result
        count = self.count + (self.more if places[-1] == len(self.positions) - 1 else 0)
        if count <= 0:  # a run of a single iterate
            result[places] = 1.0
            return result
        at = self.positions[places]
        passed = np.clip(np.floor((at[1:] + at[:-1]) / 2 - self.first) + 1, 0, count)
        result[places] = np.diff(passed, prepend=0, append=count) / self.per
        return result

    def before(self, row: int) -> float:
        """How many of those that are counted lie wholly before a row's own, as its chord begins after them."""
        return float(max((self.positions[row] - self.per / 2 - (self.first - 0.5)) / self.per, 0.0))

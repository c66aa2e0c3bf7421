"""Several batches of one row at one point: sums of their gradients, and the jackknife over batches.

Letters: g_b the gradient of batch b of m, u_b = g_b / |g_b|, S and U the sums of g and of u, B_b the batch's examples.
With q_b = |g_b|^2, p_b = <g_b, S> and c_b = <u_b, U> all sums without one batch are known as well:
|S - g_b|^2 = |S|^2 - 2 p_b + q_b, |U - u_b|^2 = |U|^2 - 2 c_b + 1. So three numbers a batch are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from trajcheck.metrics.columns import Column

ONE_BATCH = "one batch says nothing of the noise between batches: it takes two"
TWO_BATCHES = "two batches have no jackknife error: it takes three"


class Sums(NamedTuple):
    """Over the batches of a row, or over all but one: arrays of one shape. m of them, `squares` sum |g_b|^2, `sum_sq`
    |S|^2, `units_sq` |U|^2, and `inverse_sizes` sum 1 / B_b."""

    m: np.ndarray
    squares: np.ndarray
    sum_sq: np.ndarray
    units_sq: np.ndarray
    inverse_sizes: np.ndarray


#: A statistic of sums, elementwise.
Statistic = Callable[[Sums], np.ndarray]


@dataclass(frozen=True)
class Batches:
    """[batches, rows] each, NaN beyond a row's own number of batches: |g_b|^2, <g_b, S>, <g_b, U>, the examples of the
    batch, and whether the loss is their mean (1) or their sum (0). NaN of the last two: not known. `why` [rows]: why a
    row has no batches, or ''."""

    grad_sq: np.ndarray
    dot_sum: np.ndarray
    dot_units: np.ndarray
    examples: np.ndarray
    averaged: np.ndarray
    why: np.ndarray

    @cached_property
    def here(self) -> np.ndarray:
        """Which of the batches are there [batches, rows]."""
        return ~np.isnan(self.grad_sq)

    @cached_property
    def count(self) -> np.ndarray:
        """m of each row."""
        return self.here.sum(axis=0)

    @cached_property
    def whole(self) -> Sums:
        """Over all batches of each row [rows]."""
        return Sums(self.count, *(np.where(self.here, each, 0.0).sum(axis=0) for each in self._terms))

    @cached_property
    def left_out(self) -> Sums:
        """Over all but batch b [batches, rows]; NaN where that is none."""
        squares, dot_sum, dot_units, inverse = self._terms
        whole = self.whole
        return Sums(
            np.where(self.here, whole.m - 1, np.nan),
            whole.squares - squares,
            whole.sum_sq - 2 * dot_sum + squares,
            whole.units_sq - 2 * dot_units + 1,
            whole.inverse_sizes - inverse,
        )

    @cached_property
    def _terms(self) -> tuple[np.ndarray, ...]:
        """q_b, p_b, c_b and 1 / B_b."""
        with np.errstate(all="ignore"):
            return self.grad_sq, self.dot_sum, self.dot_units / np.sqrt(self.grad_sq), 1 / self.examples

    def some(self, found: np.ndarray) -> np.ndarray:
        """Rows on which `found` [batches, rows] holds for some batch."""
        return np.asarray((found & self.here).any(axis=0))

    def value(self, statistic: Statistic) -> Column:
        """A statistic over all batches of each row; undefined where there are none, or one."""
        with np.errstate(all="ignore"):
            found = statistic(self.whole)
        return self._column(found, 2, ONE_BATCH)

    def error(self, statistic: Statistic) -> Column:
        """Its standard error by the delete-one jackknife, sqrt( (m-1)/m sum_b (s_b - s.)^2 ), >= 0, s_b the statistic
        without batch b and s. the mean of those. Undefined for m < 3. Source: Efron and Stein, "The jackknife estimate
        of variance", Annals of Statistics 9, 1981."""
        m = np.maximum(self.count, 1)
        with np.errstate(all="ignore"):
            left = np.where(self.here, statistic(self.left_out), 0.0)
            off = np.where(self.here, left - left.sum(axis=0) / m, 0.0)
            found = np.sqrt((m - 1) / m * (off**2).sum(axis=0))
        return self._column(found, 3, TWO_BATCHES)

    def _column(self, found: np.ndarray, fewest: int, too_few: str) -> Column:
        reasons = np.where((self.why == "") & (self.count < 2), ONE_BATCH, self.why)
        reasons = np.where((reasons == "") & (self.count < fewest), too_few, reasons).astype(object)
        return Column(np.where(reasons == "", found, np.nan), reasons)

    def with_error(self, statistic: Statistic, *undefined: tuple[np.ndarray, str]) -> dict[str, Column]:
        """The statistic and its error, by what is added to the column's name; `undefined`: rows on which neither is
        given, and why."""
        found = {"": self.value(statistic), "_se": self.error(statistic)}
        for mask, reason in undefined:
            found = {name: each.except_where(mask, reason) for name, each in found.items()}
        return {name: each.finite() for name, each in found.items()}

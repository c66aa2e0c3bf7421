"""Columns of numbers in which every missing value knows why it is missing.

A column holds float64 values, NaN where undefined, and beside each NaN a reason in words. Arithmetic between columns
carries the reasons along, so that a formula in metrics/ reads like the formula in the paper, and an empty cell in a
report can always be accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

OVERFLOW = "not finite: the operands are too large or too small for float64"


@dataclass(frozen=True)
class Column:
    """`values` (float64, NaN where undefined) and `reasons` (one string a row, '' where defined), of one length."""

    values: np.ndarray
    reasons: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def defined(self) -> np.ndarray:
        return self.reasons == ""

    def __add__(self, other: Column) -> Column:
        return lift(np.add, self, other)

    def __sub__(self, other: Column) -> Column:
        return lift(np.subtract, self, other)

    def __mul__(self, other: Column | float) -> Column:
        return lift(np.multiply, self, other if isinstance(other, Column) else constant(other, len(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Column:
        return lift(np.negative, self)

    def __abs__(self) -> Column:
        return lift(np.abs, self)

    def sqrt(self) -> Column:
        return lift(np.sqrt, self)

    def over(self, divisor: Column, zero: str) -> Column:
        """self / divisor; undefined, with the reason `zero`, where the divisor vanishes."""
        return lift(np.divide, self, divisor.except_where(divisor.values == 0, zero))

    def along(self, other: Column) -> Column:
        """The same values, on the rows where `other` is defined too."""
        return lift(lambda own, _: own, self, other)

    def except_where(self, mask: np.ndarray, reason: str | np.ndarray) -> Column:
        """Undefined, with `reason`, where `mask` holds and the column was defined."""
        fresh = np.asarray(mask, dtype=bool) & self.defined
        return Column(np.where(fresh, np.nan, self.values), np.where(fresh, reason, self.reasons))


def column(values: Iterable[float | None], *reasons: str | Iterable[str]) -> Column:
    """A column from numbers and None. A row is undefined for the first reason that is not '', of one string a row or
    one for all; a None that no reason explains is undefined because it `was not produced`."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    why = np.full(len(numbers), "", dtype=object)
    for reason in reasons:
        each = np.array([reason] * len(numbers) if isinstance(reason, str) else list(reason), dtype=object)
        why = np.where(why == "", each, why)
    why = np.where((why == "") & np.isnan(numbers), "not finite, or not produced", why)
    return Column(np.where(why == "", numbers, np.nan), why)


def constant(value: float, length: int) -> Column:
    return Column(np.full(length, float(value)), np.full(length, "", dtype=object))


def lift(function: Callable[..., np.ndarray], *columns: Column) -> Column:
    """Apply an elementwise function where all columns are defined; elsewhere the first reason is carried along."""
    reasons = columns[0].reasons
    for other in columns[1:]:
        reasons = np.where(reasons == "", other.reasons, reasons)
    with np.errstate(all="ignore"):
        values = function(*(each.values for each in columns))
    reasons = np.where((reasons == "") & ~np.isfinite(values), OVERFLOW, reasons)
    return Column(np.where(reasons == "", values, np.nan), reasons)


def running_sum(terms: Column, weights: np.ndarray) -> Column:
    """S_t = sum_{i<=t} w_i a_i over the rows where a is defined; undefined where a_t is."""
    return _running(terms, lambda a, w: np.cumsum(w * a), weights)


def running_mean(terms: Column, weights: np.ndarray) -> Column:
    """sum_{i<=t} w_i a_i / sum_{i<=t} w_i over the rows where a is defined; undefined where a_t is."""
    return _running(terms, lambda a, w: np.cumsum(w * a) / np.cumsum(w), weights)


def running_max(terms: Column) -> Column:
    """max_{i<=t} a_i over the rows where a is defined; undefined where a_t is."""
    return _running(terms, lambda a, _: np.maximum.accumulate(a), np.ones(len(terms)))


def exponential_mean(terms: Column, beta: float, *, debias: bool = True) -> Column:
    """m_n / (1 - beta^n), m_n = beta m_{n-1} + (1 - beta) a_n, m_0 = 0, n counting the rows where a is defined; with
    `debias` false m_n itself."""

    def average(a: np.ndarray, _: np.ndarray) -> np.ndarray:
        result, mean = np.empty(len(a)), 0.0
        for n, value in enumerate(a):
            mean = beta * mean + (1 - beta) * value
            result[n] = mean / -np.expm1((n + 1) * np.log(beta)) if debias else mean
        return result

    return _running(terms, average, np.ones(len(terms)))


def _running(terms: Column, function: Callable[[np.ndarray, np.ndarray], np.ndarray], weights: np.ndarray) -> Column:
    here = terms.defined
    values = np.full(len(terms), np.nan)
    if here.any():
        values[here] = function(terms.values[here], weights[here])
    return Column(values, terms.reasons)

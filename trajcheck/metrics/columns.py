"""Columns of numbers in which every missing value knows why it is missing.

A column holds float64 values, NaN where undefined, and beside each NaN a reason in words. Arithmetic between columns
carries the reasons along, so that a formula in metrics/ reads like the formula in the paper, and an empty cell in a
report can always be accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajcheck.metrics.weights import Weights

NOT_PRODUCED = "not finite, or not produced"
OVERFLOW = "not finite: the operands are too large or too small for float64"


@dataclass(frozen=True)
class Column:
    """`values` (float64, NaN where undefined) and `reasons` (one string a row, '' where defined), of one length."""

    values: np.ndarray
    reasons: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def defined(self) -> np.ndarray:
        """Where there is a value [rows], bool; not to be written into, as neither are the others."""
        return np.asarray(self.reasons == "")

    @cached_property
    def whole(self) -> bool:
        """Whether it is defined on every row."""
        return bool(self.defined.all())

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

    def finite(self) -> Column:
        """The same, undefined where its values are not finite."""
        spoilt = self.defined & ~np.isfinite(self.values)
        return self.except_where(spoilt, OVERFLOW) if spoilt.any() else self

    def except_where(self, mask: np.ndarray, reason: str | np.ndarray) -> Column:
        """Undefined, with `reason`, where `mask` holds and the column was defined."""
        fresh = np.asarray(mask, dtype=bool) & self.defined
        if not fresh.any():
            return self
        return Column(np.where(fresh, np.nan, self.values), np.where(fresh, reason, self.reasons))


def column(values: Iterable[float | None], *reasons: str | Iterable[str]) -> Column:
    """A column from numbers and None. A row is undefined for the first reason that is not '', of one string a row or
    one for all; a None that no reason explains is undefined because it `was not produced`."""
    numbers = np.array(list(values), dtype=np.float64)  # NaN for None
    why = first_reasons(len(numbers), reasons)
    defined, missing = why == "", np.isnan(numbers)
    if (defined & missing).any():
        why, defined = np.where(defined & missing, NOT_PRODUCED, why), defined & ~missing
    return _of(numbers if defined.all() else np.where(defined, numbers, np.nan), why, defined)


def first_reasons(length: int, reasons: Sequence[str | Iterable[str]]) -> np.ndarray:
    """Row by row the first of the reasons that is not '', or ''; of one string a row or one for all."""
    if len(reasons) == 1 and isinstance(reasons[0], np.ndarray):
        return reasons[0]
    why = np.full(length, "", dtype=object)
    for reason in reasons:
        each = [reason] * length if isinstance(reason, str) else list(reason)
        if any(each):
            why = np.where(why == "", np.array(each, dtype=object), why)
    return why


def constant(value: float, length: int) -> Column:
    return Column(np.full(length, float(value)), np.full(length, "", dtype=object))


def lift(function: Callable[..., np.ndarray], *columns: Column) -> Column:
    """Apply an elementwise function where all columns are defined; elsewhere the first reason is carried along."""
    reasons, defined = columns[0].reasons, columns[0].defined
    for other in columns[1:]:
        if not other.whole and other.reasons is not reasons:
            reasons, defined = np.where(defined, other.reasons, reasons), defined & other.defined
    with np.errstate(all="ignore"):
        values = function(*(each.values for each in columns))
    finite = np.isfinite(values)
    if finite.all() and defined.all():
        return _of(values, reasons, defined)
    if (defined & ~finite).any():
        reasons, defined = np.where(defined & ~finite, OVERFLOW, reasons), defined & finite
    return _of(np.where(defined, values, np.nan), reasons, defined)


def _of(values: np.ndarray, reasons: np.ndarray, defined: np.ndarray) -> Column:
    """A column of which it is known where it is defined: comparing words is most of the work on short ones."""
    made = Column(values, reasons)
    made.__dict__["defined"] = defined
    return made


def running_sum(terms: Column, weights: Weights) -> Column:
    """S_t = sum_{i<=t} w_i a_i over the rows where a is defined; undefined where a_t is."""
    return _running(terms, weights, lambda a, w: np.cumsum(w * a))


def running_mean(terms: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i a_i / sum_{i<=t} w_i over the rows where a is defined; undefined where a_t is. Before the first
    row that weighs anything it is a_t."""
    return _running(terms, weights, mean_so_far)


def mean_so_far(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """sum w a / sum w up to each place; a itself before the first that weighs anything."""
    total = np.cumsum(w)
    return np.where(total > 0, np.cumsum(w * a) / np.where(total > 0, total, 1.0), a)


def running_max(terms: Column) -> Column:
    """max_{i<=t} a_i over the rows where a is defined; undefined where a_t is."""
    here = terms.defined
    values = np.full(len(terms), np.nan)
    values[here] = np.maximum.accumulate(terms.values[here])
    return Column(values, terms.reasons)


def exponential_mean(terms: Column, steps: np.ndarray, beta: float, *, debias: bool = True) -> Column:
    """m_t / (1 - beta^n), m <- beta^delta m + (1 - beta^delta) a_t, m = 0 at first, over the rows where a is defined;
    with `debias` false m_t itself.

    delta is the number of steps since the row before, 1 in the first row, and n their sum: it forgets by steps, so that
    runs that were recorded at different strides can be compared.
    """
    here = terms.defined
    values, mean, passed, last = np.full(len(terms), np.nan), 0.0, 0, None
    for place in np.flatnonzero(here):
        delta = 1 if last is None else int(steps[place] - last)
        kept = beta**delta
        mean, passed, last = kept * mean + (1 - kept) * terms.values[place], passed + delta, steps[place]
        values[place] = mean / -np.expm1(passed * np.log(beta)) if debias else mean
    return Column(values, terms.reasons)


def sum_error(terms: Column, weights: Weights, missed: Column | None = None) -> Column:
    """Of running_sum, the error for the choice of rows, >= 0, from the rows that are there: sqrt of the running sum of
    half of `gap_squares`, over the gaps between neighbouring rows up to t, and of the square of what is known to be
    `missed`."""

    def error(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        squares = sum((scale * np.diff(a, prepend=a[:1])[shifted]) ** 2 for scale, shifted in gap_squares(w))
        return np.sqrt(np.cumsum(squares) / 2)

    found = _running(terms, weights, error)
    return found if missed is None else lift(np.hypot, found, missed)


def gap_squares(w: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the gap before each row adds to an error for the choice of rows, for weights w [rows]: squares of a factor
    [rows] times the difference of a from the row before, at the row itself or, `places` [rows], at the one before it.

    The gap before row i stands for m_i = (w_{i-1} + w_i) / 2 steps, 0 for the first. Its own difference weighs m_i, and
    a difference may go on in the gap beside it: half of its square weighs as much as the gap before or after it does.
    """
    gap = (w + np.concatenate([w[:1], w[:-1]])) / 2
    gap[:1] = 0.0
    here = np.arange(len(w))
    before = np.maximum(here - 1, 0)
    return [(gap, here), (gap[before] / 2**0.5, here), (gap / 2**0.5, before)]


def weights_of(terms: Column, weights: Weights) -> Column:
    """What the rows weigh on which a is defined; undefined elsewhere."""
    here = terms.defined
    return Column(np.where(here, weights.of(here), np.nan), terms.reasons)


def _running(terms: Column, weights: Weights, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Column:
    here = terms.defined
    values = np.full(len(terms), np.nan)
    if here.any():
        with np.errstate(all="ignore"):
            values[here] = function(terms.values[here], weights.of(here)[here])
    return Column(values, terms.reasons).finite()

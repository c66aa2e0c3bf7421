"""What the spread between probe batches, or along the path, says about a mean over them.

Probe batches are drawn once, independently of the run, so that the error of a mean over B of them is that of B
independent draws. It says nothing of batches of another size, or of other data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.student import effective_freedom, widening
from trajcheck.metrics.weights import Weights

#: Rows, and degrees of freedom, below which a mean along the path has no error.
FEWEST_ROWS, FEWEST_FREEDOM = 8, 2.0

ONE_BATCH = "one probe batch has no standard error"


def mean_over_batches(batches: Sequence[Column]) -> Column:
    """The mean of one column over B batches; undefined where one of them is."""
    return lift(lambda *values: np.mean(values, axis=0), *batches)


def standard_error(batches: Sequence[Column]) -> Column:
    """s / sqrt(B) of a mean over B batches, s the sample standard deviation (divisor B - 1), >= 0; undefined for
    B = 1."""
    if len(batches) == 1:
        return _one_batch(batches[0])
    return lift(lambda *values: np.std(values, axis=0, ddof=1) / len(values) ** 0.5, *batches)


def jackknife_error(num: Sequence[Column], den: Sequence[Column]) -> Column:
    """Standard error of mean(num) / mean(den) over B batches by the delete-one jackknife, >= 0.

    sqrt( (B-1)/B sum_b (r_b - r.)^2 ), r_b = sum_{c != b} num_c / sum_{c != b} den_c, r. their mean. Undefined for
    B = 1. Source: Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981.
    """
    if len(num) == 1:
        return _one_batch(num[0])

    def error(*values: np.ndarray) -> np.ndarray:
        count = len(values) // 2
        top, bottom = np.stack(values[:count]), np.stack(values[count:])
        without = (top.sum(axis=0) - top) / (bottom.sum(axis=0) - bottom)
        deviation = without - without.mean(axis=0)
        return np.sqrt((count - 1) / count * (deviation**2).sum(axis=0))

    return lift(error, *num, *den)


def _one_batch(column: Column) -> Column:
    return column.except_where(np.ones(len(column), dtype=bool), ONE_BATCH)


def mean_with_error(values: Column, weights: Weights) -> tuple[float, float | None] | None:
    """Weighted mean over the defined rows, and its standard error by batch means; None where no row is defined."""
    return weighted_mean(values, weights.of(values.defined))


def weighted_mean(values: Column, weights: np.ndarray) -> tuple[float, float | None] | None:
    """The same with the weights [rows] that are given.

    Neighbouring rows are correlated, so the rows are cut into about sqrt(n) consecutive stretches (n rows, at least 4
    stretches) of about equal weight, and the error is that of the mean of the stretches' means, times `widening` for
    their number: two errors cover 95% also where stretches are few or unequal. With fewer than 8 rows, or where fewer
    than two degrees of freedom are left, as where one row outweighs all others, there is no error.

    Letters: p_i the share of the weight and m_i the mean of stretch i, m the mean of all, u_i = sum of w^2 over its
    rows, to which the variance of p_i m_i is proportional where the rows' own is the same. The error's square is
    sum p_i^2 (m_i - m)^2 times sum u over its expectation, and its degrees of freedom are Satterthwaite's (1946).
    """
    here = values.defined & (weights > 0)
    value, weight = values.values[here], weights[here]
    if not len(value):
        return None
    mean = float(np.average(value, weights=weight))
    if len(value) < FEWEST_ROWS:
        return mean, None
    count = max(4, round(len(value) ** 0.5))
    middles = np.cumsum(weight) - weight / 2
    _, part = np.unique(np.minimum(middles / weight.sum() * count, count - 1).astype(int), return_inverse=True)
    masses, squares = np.bincount(part, weight), np.bincount(part, weight**2)
    share = masses / masses.sum()
    off = share * (np.bincount(part, weight * value) / masses - mean)
    apart = np.eye(len(share)) - share[:, None]
    covariance = (apart * squares) @ apart.T
    freedom = effective_freedom(covariance)
    if freedom < FEWEST_FREEDOM:
        return mean, None
    variance = float((off**2).sum() * squares.sum() / np.trace(covariance))
    return mean, variance**0.5 * widening(freedom)


def draw_error(terms: np.ndarray, weights: np.ndarray) -> float:
    """Standard error of sum w a [rows] for the draws of the steps' own samples, >= 0, at the iterates that were
    visited: sqrt( 1/2 sum c_i^2 (a_i - a_{i+1})^2 sum w^2 / sum c^2 ), c_i = (w_i + w_{i+1}) / 2, over neighbouring
    rows, times `widening` for its degrees of freedom, (sum c^2)^2 / (sum c_i^4 + 1/2 sum c_i^2 c_{i+1}^2).

    Given its iterate a term's sample is drawn anew at every step, so that terms are independent around a trend, of
    which neighbours hardly differ.
    """
    gaps = (weights[1:] + weights[:-1]) / 2
    squares, total = gaps**2, float((gaps**2).sum())
    if not total > 0:
        return 0.0
    scale = math.ldexp(1.0, max(-1021, math.frexp(float(np.abs(terms).max()))[1] - 1))  # whose squares are no infinity
    found = float((squares * np.diff(terms / scale) ** 2).sum()) / 2 * float((weights**2).sum()) / total
    freedom = total**2 / float((squares**2).sum() + (squares[1:] * squares[:-1]).sum() / 2)
    return found**0.5 * widening(max(freedom, 1.0)) * scale

"""What the spread between probe batches, or along the path, says about a mean over them.

Probe batches are drawn once, independently of the run, so that the error of a mean over B of them is that of B
independent draws. It says nothing of batches of another size, or of other data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.weights import Weights

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

    Neighbouring rows are correlated, so the rows are cut into about sqrt(n) consecutive batches (n rows, at least 4
    batches of at least 2), and the error is that of the mean of the batches' means. With fewer than 8 rows there is no
    error.
    """
    here = values.defined & (weights > 0)
    value, weight = values.values[here], weights[here]
    if not len(value):
        return None
    mean = float(np.average(value, weights=weight))
    if len(value) < 8:
        return mean, None
    parts = np.array_split(np.arange(len(value)), max(4, round(len(value) ** 0.5)))
    masses = np.array([weight[part].sum() for part in parts])
    means = np.array([np.average(value[part], weights=weight[part]) for part in parts])
    share = masses / masses.sum()
    count = len(parts)
    variance = count / (count - 1) * float((share**2 * (means - mean) ** 2).sum())
    return mean, variance**0.5


def draw_error(terms: np.ndarray, weights: np.ndarray) -> float:
    """Standard error of sum w a [rows] for the draws of the steps' own samples, >= 0, at the iterates that were
    visited: sqrt( 1/2 sum ((w_i + w_{i+1}) (a_i - a_{i+1}) / 2)^2 ) over neighbouring rows.

    Given its iterate a term's sample is drawn anew at every step, so that terms are independent around a trend, of
    which neighbours hardly differ.
    """
    return float(np.sqrt((((weights[1:] + weights[:-1]) / 2 * np.diff(terms)) ** 2).sum() / 2))

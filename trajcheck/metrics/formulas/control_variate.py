"""Sums over thinned records, with the sum of loss_change as a control variate, which is known on a fixed sample.

Letters: u_i a term <grad f, d_i>, a_i = loss_change_i, b the first iterate whose update is counted. On probe batches
and the whole data set the sum of a over ALL updates up to t is K_t = f(x_t; z) - f(x_b; z), whatever was recorded (in
the last row, which stands for all updates that are left, that of the run's end), so

    controlled_t = K_t + sum_{i<=t} w_i (u_i - a_i)

has the choice of rows in the differences u - a alone, which are of second order in d. On some forty trainings, recorded
at 10% and at 2%, its true error was 3 to 17 times smaller than that of the plain sum (medians, by optimizer;
benchmarks/choice_of_rows.py); a coefficient fitted to the rows is no better, and its error less honest.
Its own error,

    rows_se_t^2 = (rows_se_t of u - a, without `missed`)^2 + (rho_t missed_t)^2,    missed_t = K_t - sum w_i a_i,

takes what no row met to have differences as the rows have: rho_t = min(1, |sum w (u - a)| / |sum w a|). Of every step
nothing is missed, controlled sums are the plain ones, and stand in no report. On own samples K is not known.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, lift, running_max, running_sum, sum_error
from trajcheck.metrics.formulas.choice_of_rows import THINNED, rows_formula
from trajcheck.metrics.quantity import LOSS, NONE, STEPS, quantity
from trajcheck.metrics.quotients import NO_QUOTIENT, RESOLUTION
from trajcheck.metrics.weights import Weights

WHEN = ("fixed", THINNED)


def _formula(of: str) -> str:
    return f"loss_change_known + sum of w ({of} - loss_change): {of}_sum with a control variate"


def controlled(terms: Column, change: Column, known: Column, weights: Weights) -> Column:
    """K_t + sum_{i<=t} w_i (u_i - a_i)."""
    return known + running_sum(terms - change, weights)


def controlled_error(terms: Column, change: Column, known: Column, weights: Weights) -> Column:
    """Its error for the choice of rows."""
    differences = terms - change
    gap, fall = running_sum(differences, weights), running_sum(change.along(terms), weights)

    def missed(gap: np.ndarray, fall: np.ndarray, known: np.ndarray) -> np.ndarray:
        rho = np.minimum(np.abs(gap) / np.maximum(np.abs(fall), np.finfo(np.float64).tiny), 1.0)
        return rho * (known - fall)

    return sum_error(differences, weights, lift(missed, gap, fall, known))


@quantity(STEPS, formula=_formula("update_corr"), unit=LOSS, family="progress", when=WHEN)
def update_corr_controlled_sum(
    update_corr: Column, loss_change: Column, known_change: Column, weights: Weights
) -> Column:
    """controlled_t of <g_i, d_i>: any sign, in units of the loss."""
    return controlled(update_corr, loss_change, known_change, weights)


@quantity(
    STEPS, formula=rows_formula("update_corr_controlled_sum"), unit=LOSS, range=">= 0", family="progress", when=WHEN
)
def update_corr_controlled_sum_rows_se(
    update_corr: Column, loss_change: Column, known_change: Column, weights: Weights
) -> Column:
    """rows_se of it."""
    return controlled_error(update_corr, loss_change, known_change, weights)


@quantity(STEPS, formula=_formula("descent"), unit=LOSS, family="progress", when=WHEN)
def descent_controlled_sum(descent: Column, loss_change: Column, known_change: Column, weights: Weights) -> Column:
    """controlled_t of descent_i: any sign, in units of the loss."""
    return controlled(descent, loss_change, known_change, weights)


@quantity(STEPS, formula=rows_formula("descent_controlled_sum"), unit=LOSS, range=">= 0", family="progress", when=WHEN)
def descent_controlled_sum_rows_se(
    descent: Column, loss_change: Column, known_change: Column, weights: Weights
) -> Column:
    """rows_se of it."""
    return controlled_error(descent, loss_change, known_change, weights)


@quantity(
    STEPS,
    formula="update_corr_controlled_sum / loss_change_known: convexity_ratio with a control variate",
    of_means=("update_corr_controlled_sum", "known_change"),
    unit=NONE,
    family="convexity",
    when=WHEN,
)
def convexity_ratio_controlled(
    update_corr_controlled_sum: Column, known_change: Column, gap_resolution: Column
) -> Column:
    """The convexity ratio towards x_{t-1}, the denominator known: any sign. Undefined where that is not above the
    largest resolution so far of a change of the loss."""
    resolution = running_max(gap_resolution.along(known_change))
    small = np.abs(known_change.values) <= resolution.values
    return update_corr_controlled_sum.over(known_change.except_where(small, RESOLUTION), NO_QUOTIENT)


@quantity(
    STEPS, formula=rows_formula("convexity_ratio_controlled"), unit=NONE, range=">= 0", family="convexity", when=WHEN
)
def convexity_ratio_controlled_rows_se(
    convexity_ratio_controlled: Column, update_corr_controlled_sum_rows_se: Column, known_change: Column
) -> Column:
    """rows_se of update_corr_controlled_sum over |K_t|, which has none."""
    error = update_corr_controlled_sum_rows_se.over(abs(known_change), NO_QUOTIENT)
    return error.along(convexity_ratio_controlled)

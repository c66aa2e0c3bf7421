"""Errors of sums over thinned records, for the choice of the rows that were recorded.

A sum S_t = sum_{i<=t} w_i a_i over rows that stand for w_i steps each has the error

    rows_se_t = sqrt( 1/2 sum ((w_i + w_{i+1}) (a_i - a_{i+1}) / 2)^2 ),    over neighbouring rows up to t,

>= 0, in the units of the sum. It is beside any error over batches, and 0 where a is constant. On 14 trainings and
thinnings three such errors covered 97 to 100% of sums under SGD; under momentum, with few rows at random, 58 to 98%: a
peak that was not recorded cannot be seen, nor a steep fall that few rows meet. Columns stand in a report whose rows
are not all steps.
"""

from __future__ import annotations

import math

import numpy as np

from trajcheck.metrics.columns import Column, lift, sum_error
from trajcheck.metrics.formulas.convexity import convexity_terms, of_convexity_terms
from trajcheck.metrics.formulas.progress import of_loss_change
from trajcheck.metrics.quantity import COUNT, LOSS, NONE, REFERENCES, STEPS, quantity
from trajcheck.metrics.weights import Weights

BOTH = (STEPS, REFERENCES)
THINNED = "thinned"


def _formula(of: str) -> str:
    return f"error of {of} for the choice of the rows that were recorded"


@quantity(
    STEPS, formula=_formula("update_corr_sum"), unit=LOSS, range=">= 0", family="progress", of_tensor=True,
    optional=("loss_change",), when=THINNED,
)  # fmt: skip
def update_corr_sum_rows_se(update_corr: Column, loss_change: Column, weights: Weights) -> Column:
    """rows_se of the terms <g_i, d_i>."""
    return sum_error(of_loss_change(update_corr, loss_change), weights)


@quantity(
    STEPS, formula=_formula("descent_sum"), unit=LOSS, range=">= 0", family="progress", of_tensor=True, when=THINNED
)
def descent_sum_rows_se(descent: Column, weights: Weights) -> Column:
    """rows_se of the terms descent_i."""
    return sum_error(descent, weights)


@quantity(STEPS, formula=_formula("loss_change_sum"), unit=LOSS, range=">= 0", family="progress", when=THINNED)
def loss_change_sum_rows_se(loss_change: Column, weights: Weights) -> Column:
    """rows_se of the terms loss_change_i."""
    return sum_error(loss_change, weights)


@quantity(
    *BOTH, formula=_formula("convexity_num"), unit=LOSS, range=">= 0", family="convexity", of_tensor=True,
    optional=("loss_at_x", "loss_at_y"), when=THINNED,
)  # fmt: skip
def convexity_num_rows_se(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, weights: Weights) -> Column:
    """rows_se of the terms <g_i, x_i - y>."""
    return sum_error(of_convexity_terms(loss_at_x, loss_at_y, grad_dot_y), weights)


@quantity(*BOTH, formula=_formula("convexity_den"), unit=LOSS, range=">= 0", family="convexity", when=THINNED)
def convexity_den_rows_se(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, weights: Weights) -> Column:
    """rows_se of the terms f(x_i; z) - f(y; z)."""
    return sum_error(convexity_terms(loss_at_x, loss_at_y, grad_dot_y), weights)


@quantity(*BOTH, formula=_formula("convexity_ratio"), unit=NONE, range=">= 0", family="convexity", when=THINNED)
def convexity_ratio_rows_se(
    convexity_ratio: Column, convexity_den: Column, num_terms: Column, den_terms: Column, terms_weights: Column
) -> Column:
    """rows_se of the terms <g_i, x_i - y> - R_t (f(x_i; z) - f(y; z)), R_t the ratio, divided by |den_t|.

    R_t is another at each row. The rows of differences (of num, of den) are therefore kept as the triangle of a QR
    factorisation that grows by a row at a time: expanding the square would lose half of the digits.
    """
    here = num_terms.defined & den_terms.defined
    places = np.flatnonzero(here)
    n, f, w = (each.values[here] for each in (num_terms, den_terms, terms_weights))
    scale = (w[1:] + w[:-1]) / 2 / 2**0.5
    values = np.full(len(here), np.nan)
    values[places[:1]] = 0.0
    ff = fn = nn = 0.0
    for i, (df, dn) in enumerate(zip(scale * np.diff(f), scale * np.diff(n), strict=True), start=1):
        length = math.hypot(ff, df)
        cos, sin = (ff / length, df / length) if length else (1.0, 0.0)
        ff, fn, rest = length, cos * fn + sin * dn, cos * dn - sin * fn
        nn = math.hypot(nn, rest)
        values[places[i]] = math.hypot(fn - convexity_ratio.values[places[i]] * ff, nn)
    error = Column(values, lift(np.add, num_terms, den_terms).reasons).along(convexity_ratio)
    return error.over(abs(convexity_den), "the denominator is 0")


@quantity(*BOTH, formula="a term of convexity_num", unit=LOSS, hidden=True, when=THINNED)
def num_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """<g_i, x_i - y>, on the rows of convexity_den."""
    return grad_dot_y.along(convexity_terms(loss_at_x, loss_at_y, grad_dot_y))


@quantity(*BOTH, formula="a term of convexity_den", unit=LOSS, hidden=True, when=THINNED)
def den_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """f(x_i; z) - f(y; z)."""
    return convexity_terms(loss_at_x, loss_at_y, grad_dot_y)


@quantity(*BOTH, formula="what those terms weigh", unit=COUNT, range=">= 0", hidden=True, when=THINNED)
def terms_weights(num_terms: Column, weights: Weights) -> Column:
    """w_i on their rows."""
    return Column(np.where(num_terms.defined, weights.of(num_terms.defined), np.nan), num_terms.reasons)

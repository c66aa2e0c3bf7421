"""Errors of sums over thinned records, for the choice of the rows that were recorded.

A sum S_t = sum_{i<=t} w_i a_i over rows that stand for w_i steps each has the error rows_se_t, >= 0, in the units of
the sum,

    rows_se_t^2 = 1/2 sum_j d_j^2 (m_j^2 + (m_{j-1}^2 + m_{j+1}^2) / 2) + missed_t^2,

the sum over the gaps j between neighbouring rows up to t, d_j the difference of a across a gap and m_j the mean of its
two rows' weights. It is beside any error over batches, and stands in a report whose rows are not all steps.

The terms m_j^2 alone give the error of independent noise, and cover a fall that the rows at its ends meet. The terms of
the gaps beside are for one that goes on beyond: without them three errors cover 82 to 92% of the sums of a steep fall,
with them 19 in 20 at 10% of the rows, fewer at 2%. `missed` is what is known of the rows' sum of loss_change
(`change_missed`), which updates that no row met have in common with sums of <g, d>, to first order.
benchmarks/choice_of_rows.py measures the shares on models and thinnings. Where few rows are left of a run whose loss
is almost always 0 and leaps on rare batches, no row may meet one, and nothing tells of them; momentum has such peaks
at its beginning.
"""

from __future__ import annotations

import math

import numpy as np

from trajcheck.metrics.columns import Column, gap_squares, lift, running_sum, sum_error, weights_of
from trajcheck.metrics.formulas.convexity import convexity_terms, of_convexity_terms
from trajcheck.metrics.formulas.progress import of_loss_change
from trajcheck.metrics.quantity import COUNT, LOSS, NONE, REFERENCES, STEPS, quantity
from trajcheck.metrics.quotients import quotient_error
from trajcheck.metrics.weights import Weights

BOTH = (STEPS, REFERENCES)
THINNED = "thinned"


def rows_formula(of: str) -> str:
    return f"error of {of} for the choice of the rows that were recorded"


@quantity(
    STEPS,
    formula="f(x_t; z) - f(x_b; z), and f(x_e; z) - f(x_b; z) on the last row that has loss_change",
    unit=LOSS,
    hidden=True,
)
def known_change(loss_at_row: Column, start_loss: Column, end_loss: Column, loss_change: Column) -> Column:
    """What loss_change_sum is to be on a fixed sample: its last row stands for all updates that are left, up to x_e.
    Undefined throughout where f(x_b) or f(x_e) is on no row."""
    change = (loss_at_row - start_loss).along(end_loss)
    last = np.flatnonzero(loss_change.defined)[-1:]
    values = change.values.copy()
    values[last] = (end_loss - start_loss).values[last]
    return Column(values, change.reasons)


@quantity(
    STEPS,
    formula="what is known of the error of loss_change_sum: on probe and full all of it; on own, of the updates before "
    "the first row that has loss_change; else 0",
    unit=LOSS,
    hidden=True,
)
def change_missed(
    known_change: Column,
    loss_at_y: Column,
    loss_change: Column,
    start_loss: Column,
    weights: Weights,
    fixed_sample: bool,
    same_sample: bool,
) -> Column:
    """Letter: x_b the first iterate whose update is counted, `start_loss` = f(x_b; z).

    On a fixed sample known_change_t - loss_change_sum_t. On own samples, where sums run over draws that x_t does not
    know, only of the updates from x_b to the chord of the first row r that has loss_change: f(x_{r-1}; z_r) - f(x_b;
    z_b) less what the row stands for there. It holds the noise of two batches. 0 where it is not known.
    """
    nothing = Column(np.zeros(len(loss_change)), np.full(len(loss_change), "", dtype=object))
    places = np.flatnonzero(loss_change.defined)
    if not len(places) or not start_loss.defined.all():
        return nothing
    if fixed_sample:
        found = known_change - running_sum(loss_change, weights)
    else:
        first = places[0]
        passed = weights.before(first) * loss_change.values[first]
        missed = loss_at_y.values[first] - start_loss.values[0] - passed
        if not same_sample or not weights.before(first) or not np.isfinite(missed):
            return nothing
        found = Column(np.where(np.arange(len(loss_change)) >= first, missed, 0.0), nothing.reasons)
    return Column(np.where(found.defined, found.values, 0.0), nothing.reasons)


@quantity(
    STEPS, formula=rows_formula("update_corr_sum"), unit=LOSS, range=">= 0", family="progress", of_tensor=True,
    optional=("loss_change", "change_missed"), when=THINNED,
)  # fmt: skip
def update_corr_sum_rows_se(
    update_corr: Column, loss_change: Column, weights: Weights, change_missed: Column
) -> Column:
    """rows_se of the terms <g_i, d_i>."""
    return sum_error(of_loss_change(update_corr, loss_change), weights, change_missed)


@quantity(
    STEPS, formula=rows_formula("descent_sum"), unit=LOSS, range=">= 0", family="progress", of_tensor=True,
    optional=("change_missed",), when=THINNED,
)  # fmt: skip
def descent_sum_rows_se(descent: Column, weights: Weights, change_missed: Column) -> Column:
    """rows_se of the terms descent_i."""
    return sum_error(descent, weights, change_missed)


@quantity(STEPS, formula=rows_formula("loss_change_sum"), unit=LOSS, range=">= 0", family="progress", when=THINNED)
def loss_change_sum_rows_se(loss_change: Column, weights: Weights, change_missed: Column) -> Column:
    """rows_se of the terms loss_change_i."""
    return sum_error(loss_change, weights, change_missed)


@quantity(
    *BOTH, formula=rows_formula("convexity_num"), unit=LOSS, range=">= 0", family="convexity", of_tensor=True,
    optional=("loss_at_x", "loss_at_y", "change_missed"), when=THINNED,
)  # fmt: skip
def convexity_num_rows_se(
    loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, weights: Weights, change_missed: Column
) -> Column:
    """rows_se of the terms <g_i, x_i - y>."""
    return sum_error(of_convexity_terms(loss_at_x, loss_at_y, grad_dot_y), weights, change_missed)


@quantity(*BOTH, formula=rows_formula("convexity_den"), unit=LOSS, range=">= 0", family="convexity", when=THINNED)
def convexity_den_rows_se(
    loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, weights: Weights, change_missed: Column
) -> Column:
    """rows_se of the terms f(x_i; z) - f(y; z)."""
    return sum_error(convexity_terms(loss_at_x, loss_at_y, grad_dot_y), weights, change_missed)


@quantity(*BOTH, formula=rows_formula("convexity_ratio"), unit=NONE, range=">= 0", family="convexity", when=THINNED)
def convexity_ratio_rows_se(
    convexity_ratio: Column,
    convexity_den: Column,
    num_terms: Column,
    den_terms: Column,
    terms_weights: Column,
    den_rows_bound: Column,
    change_missed: Column,
) -> Column:
    """rows_se of the terms <g_i, x_i - y> - R_t (f(x_i; z) - f(y; z)), R_t the ratio, widened by Student's t, over
    |den_t| less what its own errors reach; of what both sums miss, (1 - R_t) missed_t is left."""
    error = difference_error(convexity_ratio, num_terms, den_terms, terms_weights)
    missed = lift(lambda ratio, each: (1 - ratio) * each, convexity_ratio, change_missed)
    return quotient_error(lift(np.hypot, error, missed), convexity_den, den_rows_bound, terms_weights)


def difference_error(ratio: Column, num_terms: Column, den_terms: Column, terms_weights: Column) -> Column:
    """sum_error of the terms n_i - R_t f_i at each row t, on the rows of both.

    R_t is another at each row. The rows of differences (of num, of den) are therefore kept as the triangle of a QR
    factorisation that grows by a row at a time: expanding the square would lose half of the digits.
    """
    here = num_terms.defined & den_terms.defined
    places = np.flatnonzero(here)
    n, f, w = (each.values[here] for each in (num_terms, den_terms, terms_weights))
    values = np.full(len(here), np.nan)
    dn, df = (np.diff(each, prepend=each[:1]) for each in (n, f))
    parts = [(scale / 2**0.5, shifted) for scale, shifted in gap_squares(w)]
    rows = np.stack([(scale * df[shifted], scale * dn[shifted]) for scale, shifted in parts]) if len(w) else np.empty(0)
    ff = fn = nn = 0.0
    for i, place in enumerate(places):
        for down, along in rows[:, :, i]:
            length = math.hypot(ff, down)
            cos, sin = (ff / length, down / length) if length else (1.0, 0.0)
            ff, fn, rest = length, cos * fn + sin * along, cos * along - sin * fn
            nn = math.hypot(nn, rest)
        values[place] = math.hypot(fn - ratio.values[place] * ff, nn)
    return Column(values, lift(np.add, num_terms, den_terms).reasons).along(ratio)


@quantity(
    *BOTH, formula="a term of convexity_num", unit=LOSS, hidden=True, optional=("loss_at_x", "loss_at_y")
)  # fmt: skip
def num_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """<g_i, x_i - y>, on the rows of convexity_den where there are any, else on all with gradients."""
    return of_convexity_terms(loss_at_x, loss_at_y, grad_dot_y)


@quantity(*BOTH, formula="a term of convexity_den", unit=LOSS, hidden=True)
def den_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """f(x_i; z) - f(y; z)."""
    return convexity_terms(loss_at_x, loss_at_y, grad_dot_y)


@quantity(*BOTH, formula="what those terms weigh", unit=COUNT, range=">= 0", hidden=True)
def terms_weights(num_terms: Column, weights: Weights) -> Column:
    """w_i on the rows of num_terms."""
    return weights_of(num_terms, weights)


@quantity(
    REFERENCES, formula=rows_formula("convexity_num_skip"), unit=LOSS, range=">= 0", family="convexity",
    of_tensor=True, optional=("loss_at_x", "loss_at_y"), when=("own", THINNED),
)  # fmt: skip
def convexity_num_skip_rows_se(
    loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column, skip_weights: Weights
) -> Column:
    """rows_se of the terms <g_i, x_s - x*>."""
    return sum_error(of_convexity_terms(loss_at_x, loss_at_y, grad_dot_skip), skip_weights)


@quantity(
    REFERENCES, formula=rows_formula("convexity_den_skip"), unit=LOSS, range=">= 0", family="convexity",
    when=("own", THINNED),
)  # fmt: skip
def convexity_den_skip_rows_se(
    loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column, skip_weights: Weights
) -> Column:
    """rows_se of the terms f(x_i; z) - f(x*; z), with the weights of convexity_num_skip."""
    return sum_error(convexity_terms(loss_at_x, loss_at_y, grad_dot_skip), skip_weights)


@quantity(
    REFERENCES, formula=rows_formula("convexity_ratio_skip"), unit=NONE, range=">= 0", family="convexity",
    when=("own", THINNED),
)  # fmt: skip
def convexity_ratio_skip_rows_se(
    convexity_ratio_skip: Column,
    convexity_den_skip: Column,
    skip_num_terms: Column,
    skip_den_terms: Column,
    skip_terms_weights: Column,
    skip_den_rows_bound: Column,
) -> Column:
    """As convexity_ratio_rows_se, of the terms <g_i, x_s - x*> - R_t (f(x_i; z) - f(x*; z))."""
    error = difference_error(convexity_ratio_skip, skip_num_terms, skip_den_terms, skip_terms_weights)
    return quotient_error(error, convexity_den_skip, skip_den_rows_bound, skip_terms_weights)

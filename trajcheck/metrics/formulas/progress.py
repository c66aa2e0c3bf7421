"""Progress of an update (TZC, arXiv 2407.01825). Letters: g_t = grad f(x_t; z_t), d_t = x_t - x_{t-1}.

Identity, exact: sum of loss_change - sum of update_corr = sum of inst_gap(x_{t-1}).
All of these need the pair (t-1, t); sums weigh by the row's weight divided by the stride.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trajcheck.metrics.columns import Column, running_sum
from trajcheck.metrics.quantity import CURVATURE, LOSS, NONE, STEPS, given, quantity
from trajcheck.metrics.resolution import BOUND, Rounding
from trajcheck.metrics.weights import Weights

NO_STEP = "x_t = x_{t-1}"

#: Rows, and why they are left out.
Excepted = tuple[np.ndarray, str]


@quantity(
    STEPS,
    formula="<g_t, d_t>: the update judged by a fresh sample; negative is progress",
    unit=LOSS,
    symbol="<g_t, d_t>",
    source="TZC",
    family="progress",
    of_tensor=True,
    chart=(8, "⟨g_t, d_t⟩"),
)
def update_corr(grad_dot_step: Column, not_an_update: Excepted) -> Column:
    """<g_t, d_t>; any sign, in units of the loss. Undefined where something else than the optimizer moved x. Source:
    TZC."""
    return grad_dot_step.except_where(*not_an_update)


@quantity(
    STEPS,
    formula="running sum of update_corr",
    unit=LOSS,
    source="TZC",
    family="progress",
    of_tensor=True,
    optional=("loss_change",),
    chart=(9, "its sum"),
)
def update_corr_sum(update_corr: Column, loss_change: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i <g_i, d_i>, over the rows of loss_change_sum, where there are any, so that the identity holds."""
    return running_sum(of_loss_change(update_corr, loss_change), weights)


def of_loss_change(update_corr: Column, loss_change: Column) -> Column:
    """<g_i, d_i> on the rows of loss_change, where there are any: the terms of update_corr_sum."""
    return update_corr.along(loss_change) if loss_change.defined.any() else update_corr


given(
    *("descent", STEPS),
    formula="<grad f(x_{t-1}; z), d_t>: the descent lemma's first-order term; on own samples <g_{t-1}, d_t>",
    unit=LOSS,
    source="TZC",
    family="progress",
    of_tensor=True,
    chart=(12, "⟨g_{t−1}, d_t⟩"),
)


@quantity(
    STEPS,
    formula="running sum of descent",
    unit=LOSS,
    source="TZC",
    family="progress",
    of_tensor=True,
    chart=(13, "its sum"),
)
def descent_sum(descent: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i descent_i."""
    return running_sum(descent, weights)


@quantity(
    STEPS,
    formula="f(x_t; z) - f(x_{t-1}; z): what the update did to the loss on one sample",
    unit=LOSS,
    source="TZC",
    family="progress",
    chart=(10, "f(x_t) − f(x_{t−1})"),
)
def loss_change(loss_at_x: Column, loss_at_y: Column, not_an_update: Excepted) -> Column:
    """f(x_t; z) - f(x_{t-1}; z), both replayed; any sign, in units of the loss. Undefined where something else than the
    optimizer moved x. Source: TZC."""
    return (loss_at_x - loss_at_y).except_where(*not_an_update)


@quantity(
    STEPS,
    formula="the resolution of loss_change, as gap_resolution is found: below it the change has no certain sign",
    unit=LOSS,
    range="> 0",
    family="progress",
)
def loss_change_resolution(difference_resolution: Column, loss_change: Column) -> Column:
    """That of f(x_t; z) - f(x_{t-1}; z), > 0, in units of the loss, on the rows of loss_change."""
    return difference_resolution.along(loss_change)


@quantity(
    STEPS, formula="running sum of loss_change", unit=LOSS, source="TZC", family="progress", chart=(11, "its sum")
)
def loss_change_sum(loss_change: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i loss_change_i."""
    return running_sum(loss_change, weights)


@quantity(
    STEPS,
    formula="f(x_t; z) - f(x_b; z), x_b the first iterate of the sum: what loss_change_sum is with every step recorded",
    unit=LOSS,
    family="progress",
    when="fixed",
)
def loss_change_known(loss_at_row: Column, start_loss: Column) -> Column:
    """f(x_t; z) - f(x_b; z): on a fixed sample the sum of loss_change over all updates from x_b to x_t, recorded or
    not; any sign, in units of the loss."""
    return loss_at_row - start_loss


def _promised(smoothness: str) -> str:
    return f"descent + {smoothness} |d_t|^2 / 2"


@quantity(
    STEPS,
    formula=_promised("max_smooth") + ": what the descent lemma promises of an L-smooth loss, loss_change at most",
    unit=LOSS,
    source="TZC",
    family="progress",
)
def predicted_change_max(descent: Column, max_smooth: Column, step_sq: Column) -> Column:
    """descent_t + (L/2) |d_t|^2, L = max_smooth_t, the largest smoothness up to here, any sign, in units of the loss.

    The descent lemma: for an L-smooth f, f(x_t; z) - f(x_{t-1}; z) <= <grad f(x_{t-1}; z), d_t> + (L/2) |d_t|^2, so
    loss_change is at most this where no larger smoothness follows. Source: TZC.
    """
    return descent + 0.5 * (max_smooth * step_sq)


@quantity(
    STEPS,
    formula="2 (loss_change - descent) / |d_t|^2: the smallest L with which the descent lemma holds on the row",
    unit=CURVATURE,
    hidden=True,
)
def descent_smoothness(loss_change: Column, descent: Column, step_sq: Column) -> Column:
    """2 (loss_change_t - descent_t) / |d_t|^2, any sign, in loss / length^2. Undefined where x did not move."""
    return (2.0 * (loss_change - descent)).over(step_sq, NO_STEP)


@quantity(
    STEPS,
    formula="-2 descent / |d_t|^2: descent_smoothness where the change of the loss is noise of mean 0",
    unit=CURVATURE,
    hidden=True,
)
def descent_noise(descent: Column, step_sq: Column) -> Column:
    """-2 descent_t / |d_t|^2, any sign, in loss / length^2: 2 / eta under plain SGD."""
    return (-2.0 * descent).over(step_sq, NO_STEP)


@quantity(STEPS, formula="loss_change - predicted_change_max", unit=LOSS, hidden=True)
def descent_excess(loss_change: Column, predicted_change_max: Column) -> Column:
    """By how much the loss changed more than the descent lemma promises, any sign, in units of the loss."""
    return loss_change - predicted_change_max


@quantity(STEPS, formula="the resolution of descent_excess", unit=LOSS, range="> 0", hidden=True)
def descent_excess_resolution(
    loss_change_resolution: Column, predicted_change_max: Column, descent: Column, rounding: Rounding
) -> Column:
    """That of the change of the loss and what rounding makes of the two terms of the promise, > 0."""
    terms = abs(descent) + abs(predicted_change_max - descent)
    return loss_change_resolution + (BOUND * rounding.epsilon) * terms


@quantity(STEPS, formula="running sum of predicted_change_max", unit=LOSS, source="TZC", family="progress")
def predicted_change_max_sum(predicted_change_max: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i predicted_change_max_i."""
    return running_sum(predicted_change_max, weights)


@quantity(
    STEPS,
    formula=_promised("exp_smooth") + ": TZC's question, whether the recent smoothness predicts the change of the loss",
    unit=LOSS,
    source="TZC",
    family="progress",
)
def predicted_change_exp(descent: Column, exp_smooth: Mapping[str, Column], step_sq: Column) -> Column:
    """descent_t + (L/2) |d_t|^2, L = exp_smooth_t, any sign, in units of the loss. Source: TZC."""
    return descent + 0.5 * (exp_smooth[""] * step_sq)


@quantity(STEPS, formula="running sum of predicted_change_exp", unit=LOSS, source="TZC", family="progress")
def predicted_change_exp_sum(predicted_change_exp: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i predicted_change_exp_i."""
    return running_sum(predicted_change_exp, weights)


given(
    *("path_integral", STEPS),
    formula="integral over 0 <= s <= 1 of <grad f(x_{t-1} + s d_t; z), d_t>, by the Gauss-Legendre points of "
    "--path-integral; should equal loss_change",
    unit=LOSS,
    source="TZC",
    family="progress",
    of_tensor=True,
    when="path_integral",
)


@quantity(
    STEPS,
    formula="|path_integral - loss_change| / |loss_change|",
    unit=NONE,
    range=">= 0",
    source="TZC",
    family="progress",
    when="path_integral",
)
def path_integral_error(path_integral: Column, loss_change: Column, loss_change_resolution: Column) -> Column:
    """|path_integral_t - loss_change_t| / |loss_change_t|, >= 0: how well the rule's few points integrate the gradient.

    path_integral_t = integral_0^1 <grad f(x_{t-1} + s d_t; z_t), d_t> ds by Gauss-Legendre equals loss_change_t, but
    for the error of the rule and, at kinks and in low precision, of rounding. N points are exact for a loss that is a
    polynomial of degree 2N along the chord. Undefined where loss_change is below its resolution. Source: TZC.
    """
    change = abs(loss_change)
    unresolved = change.values <= loss_change_resolution.values
    error = abs(path_integral - loss_change).over(change, "loss_change is 0")
    return error.except_where(unresolved, "loss_change is below its resolution")

"""Progress of an update (TZC, arXiv 2407.01825). Letters: g_t = grad f(x_t; z_t), d_t = x_t - x_{t-1}.

Identity, exact: sum of loss_change - sum of update_corr = sum of inst_gap(x_{t-1}).
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, running_sum


def progress_columns(
    grad_dot_step: Column, descent: Column, loss_change: Column, weights: np.ndarray
) -> dict[str, Column]:
    """The three measures of what an update did, and their running sums; any sign, in units of the loss.

    update_corr_t = <grad f(x_t; z_t), d_t>: the update judged by a fresh sample; negative is progress.
    descent_t     = <grad f(x_{t-1}; z_{t-1}), d_t>: the descent lemma's first-order term, on the sample that made d_t.
    loss_change_t = f(x_t; z_t) - f(x_{t-1}; z_t): what the update did to the loss on a fresh sample.

    All need the pair (t-1, t); sums weigh by the row's weight divided by the stride. update_corr_sum runs over the rows
    of loss_change_sum, where there are any, so that the identity holds. Source: TZC.
    """
    summed = grad_dot_step.along(loss_change) if loss_change.defined.any() else grad_dot_step
    return {
        "update_corr": grad_dot_step,
        "update_corr_sum": running_sum(summed, weights),
        "descent": descent,
        "descent_sum": running_sum(descent, weights),
        "loss_change": loss_change,
        "loss_change_sum": running_sum(loss_change, weights),
    }


def path_integral_error(path_integral: Column, loss_change: Column) -> Column:
    """|path_integral_t - loss_change_t| / |loss_change_t|, >= 0: how well the rule's few points integrate the gradient.

    path_integral_t = integral_0^1 <grad f(x_{t-1} + s d_t; z_t), d_t> ds by Gauss-Legendre equals loss_change_t, but
    for the error of the rule and, at kinks and in low precision, of rounding. N points are exact for a loss that is a
    polynomial of degree 2N along the chord. Undefined where loss_change is 0. Source: TZC.
    """
    return abs(path_integral - loss_change).over(abs(loss_change), "loss_change is 0")

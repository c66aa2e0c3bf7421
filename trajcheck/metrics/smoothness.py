"""Smoothness along the path (TZC, arXiv 2407.01825; DS, arXiv 2403.04081).

Letters: g_t = grad f(x_t; z_t), d_t = x_t - x_{t-1}, y = x_{t-1} or a reference x*.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.averaging import Averaging
from trajcheck.metrics.columns import Column, constant, running_max, running_sum


def inst_smooth(grad_change: Column, distance: Column) -> Column:
    """inst_smooth_t(y) = |grad f(x_t; z) - grad f(y; z)| / |x_t - y|, >= 0, in loss / length^2.

    At most the Lipschitz constant of the gradient; on a quadratic at most its largest |eigenvalue|. Undefined where
    x_t = y. The arguments are the two norms: over all parameters, or, as in the authors' code, version 1, sums of
    the tensors' norms. Source: TZC.
    """
    return grad_change.over(distance, "x_t and the point it is compared with are equal")


def smoothness_columns(
    grad_change: Column, distance: Column, weights: np.ndarray, averaging: Averaging
) -> dict[str, Column]:
    """inst_smooth with its running maximum, its weighted mean, and its exponential mean (debiased, beta .99)."""
    inst = inst_smooth(grad_change, distance)
    return {
        "inst_smooth": inst,
        "max_smooth": running_max(inst),
        "avg_smooth": averaging.mean(inst, weights),
        **averaging.exponential("exp_smooth", inst),
    }


def smoothness_ratio(
    inst_gap: Column, grad_dot_step: Column, step_sq: Column, weights: np.ndarray, averaging: Averaging
) -> Column:
    """- sum_{i<=t} w_i inst_gap_i(x_{i-1}) / ( 1/2 sum_{i<=t} w_i |d_i|^2 ), any sign, in loss / length^2.

    For an L-smooth f at most L, for a convex one at least 0; on a quadratic between its extreme eigenvalues.
    Undefined while the path has not moved. - inst_gap is <g_i, d_i> less the change of the loss; in the authors' code,
    version 1 (`averaging.lagging`), the sum of inner products stops at t - 1. Source: TZC.
    """
    moved = running_sum(step_sq.along(inst_gap), weights)
    numerator = -running_sum(inst_gap, weights)
    if averaging.lagging:
        numerator = numerator - Column(weights, constant(0.0, len(weights)).reasons) * grad_dot_step
    return numerator.over(0.5 * moved, "the path has not moved up to here")


def directional_smoothness(
    loss: Column, loss_previous: Column, previous_grad_dot_step: Column, step_sq: Column, resolution: Column
) -> Column:
    """| f(x_t; z_t) - f(x_{t-1}; z_t) - <grad f(x_{t-1}; z_t), d_t> | / ( 1/2 |d_t|^2 ), >= 0, in loss / length^2.

    DS's H. Undefined where d_t = 0, and where the numerator is below the resolution of the difference of losses in it:
    it would be rounding divided by a small number. Source: DS.
    """
    numerator = abs(loss - loss_previous - previous_grad_dot_step)
    unresolved = numerator.values <= resolution.values
    resolved = numerator.except_where(unresolved, "the numerator is below the resolution of the losses")
    return resolved.over(0.5 * step_sq, "x_t equals x_{t-1}")

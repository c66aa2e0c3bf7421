"""Smoothness along the path (TZC, arXiv 2407.01825; DS, arXiv 2403.04081).

Letters: g_t = grad f(x_t; z_t), d_t = x_t - x_{t-1}, y = x_{t-1} or a reference x*.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.averaging import Averaging
from trajcheck.metrics.columns import Column, constant, running_max, running_sum
from trajcheck.metrics.quantity import CURVATURE, REFERENCES, STEPS, quantity
from trajcheck.metrics.weights import Weights

BOTH = (STEPS, REFERENCES)
EQUAL = "x_t and the point it is compared with are equal"


@quantity(
    *BOTH,
    formula="|grad f(x_t; z) - grad f(y; z)| / |x_t - y|; towards x* with --ref-gradients",
    unit=CURVATURE,
    range=">= 0",
    source="TZC",
    family="smoothness",
    of_tensor=True,
    chart={STEPS: (20, "smoothness"), REFERENCES: (17, "smoothness towards x*")},
)
def inst_smooth(grad_change_y: Column, distance_y: Column, grad_change_resolution: Column) -> Column:
    """inst_smooth_t(y) = |grad f(x_t; z) - grad f(y; z)| / |x_t - y|, >= 0, in loss / length^2.

    At most the Lipschitz constant of the gradient; on a quadratic at most its largest |eigenvalue|. Undefined where
    x_t = y, and where the gradients differ by less than their difference resolves: that would be rounding divided by a
    small number. The arguments are the two norms: over all parameters, or, as in the authors' code, version 1, sums of
    the tensors' norms. Source: TZC.
    """
    smoothness = grad_change_y.over(distance_y, EQUAL)
    unresolved = grad_change_y.values <= grad_change_resolution.values
    return smoothness.except_where(unresolved, "the difference of the gradients is below its resolution")


@quantity(
    *BOTH,
    formula="the smallest inst_smooth that is not rounding: the resolution of |grad f(x_t; z) - grad f(y; z)|, as "
    "gap_resolution is found, over |x_t - y|",
    unit=CURVATURE,
    range="> 0",
    family="smoothness",
    of_tensor=True,
)
def smooth_resolution(grad_change_resolution: Column, distance_y: Column) -> Column:
    """The resolution of the difference of the gradients over |x_t - y|, > 0, in loss / length^2. Undefined where x_t =
    y."""
    return grad_change_resolution.over(distance_y, EQUAL)


@quantity(
    *BOTH,
    formula="largest inst_smooth up to t",
    unit=CURVATURE,
    range=">= 0",
    source="TZC",
    family="smoothness",
    of_tensor=True,
    chart={STEPS: (21, "its maximum so far"), REFERENCES: (19, "its maximum so far")},
)
def max_smooth(inst_smooth: Column) -> Column:
    """max_{i<=t} inst_smooth_i."""
    return running_max(inst_smooth)


@quantity(
    *BOTH,
    formula="weighted mean of inst_smooth up to t",
    unit=CURVATURE,
    range=">= 0",
    source="TZC",
    family="smoothness",
    of_tensor=True,
)
def avg_smooth(inst_smooth: Column, weights: Weights, averaging: Averaging) -> Column:
    """sum_{i<=t} w_i inst_smooth_i / sum_{i<=t} w_i."""
    return averaging.mean(inst_smooth, weights)


@quantity(
    *BOTH,
    formula="exponential mean of inst_smooth over the steps, beta .99, debiased",
    unit=CURVATURE,
    range=">= 0",
    source="TZC",
    family="smoothness",
    of_tensor=True,
    chart={STEPS: (22, "its exponential average"), REFERENCES: (18, "its exponential average")},
)
def exp_smooth(inst_smooth: Column, steps: np.ndarray, averaging: Averaging) -> dict[str, Column]:
    """m_t / (1 - beta^n), m <- beta^delta m + (1 - beta^delta) inst_smooth_t, beta = .99, delta the steps since the row
    before, n their sum."""
    return averaging.exponential(inst_smooth, steps)


@quantity(
    STEPS,
    formula="- sum of inst_gap / (1/2 sum of |d|^2)",
    unit=CURVATURE,
    source="TZC",
    family="smoothness",
    chart=(23, "smoothness ratio"),
)
def smoothness_ratio(
    inst_gap: Column,
    gap_resolution: Column,
    grad_dot_step: Column,
    step_sq: Column,
    weights: Weights,
    averaging: Averaging,
) -> Column:
    """- sum_{i<=t} w_i inst_gap_i(x_{i-1}) / ( 1/2 sum_{i<=t} w_i |d_i|^2 ), any sign, in loss / length^2.

    For an L-smooth f at most L, for a convex one at least 0; on a quadratic between its extreme eigenvalues.
    Undefined while the path has not moved, and where the sum of the gaps is below the sum of their resolutions. -
    inst_gap is <g_i, d_i> less the change of the loss; in the authors' code, version 1 (`averaging.lagging`), the sum
    of inner products stops at t - 1. Source: TZC.
    """
    moved = running_sum(step_sq.along(inst_gap), weights)
    numerator = -running_sum(inst_gap, weights)
    if averaging.lagging:
        here = inst_gap.defined
        numerator = numerator - Column(weights.of(here), constant(0.0, len(here)).reasons) * grad_dot_step
    least = running_sum(gap_resolution.along(inst_gap), weights)
    unresolved = np.abs(numerator.values) <= least.values
    ratio = numerator.over(0.5 * moved, "the path has not moved up to here")
    return ratio.except_where(unresolved, "the sum of the gaps is below its resolution")


@quantity(
    STEPS,
    formula="|f(x_t; z) - f(x_{t-1}; z) - <grad f(x_{t-1}; z), d_t>| / (1/2 |d_t|^2)",
    unit=CURVATURE,
    range=">= 0",
    source="DS",
    family="smoothness",
    chart=(24, "directional smoothness"),
)
def directional_smoothness(
    loss_at_x: Column,
    loss_at_y: Column,
    previous_grad_dot_step: Column,
    step_sq: Column,
    directional_resolution: Column,
) -> Column:
    """| f(x_t; z_t) - f(x_{t-1}; z_t) - <grad f(x_{t-1}; z_t), d_t> | / ( 1/2 |d_t|^2 ), >= 0, in loss / length^2.

    DS's H. Undefined where d_t = 0, and where the numerator is below its resolution: it would be rounding divided by a
    small number. Source: DS.
    """
    numerator = abs(loss_at_x - loss_at_y - previous_grad_dot_step)
    unresolved = numerator.values <= directional_resolution.values
    resolved = numerator.except_where(unresolved, "the numerator is below its resolution")
    return resolved.over(0.5 * step_sq, "x_t equals x_{t-1}")

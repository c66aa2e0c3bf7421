"""Who lowered the loss: the path integral of the gradient, tensor by tensor (Lan et al., arXiv 1909.01440).

Letters: p_i(s) = <grad_i f(x_{t-1} + s d_t; z), d_{t,i}>, the slope along the update that tensor i makes; N the points
of the Gauss-Legendre rule. The sum over tensors is path_integral, to rounding, whatever a tensor is split into.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, column, lift, running_mean, running_sum, sum_error
from trajcheck.metrics.formulas.choice_of_rows import rows_formula
from trajcheck.metrics.judged import signs
from trajcheck.metrics.quantity import ALLOCATION, LOSS, NONE, quantity
from trajcheck.metrics.weights import Weights

SOURCE = "Lan et al., arXiv 1909.01440"
#: Of which family they are, and what they take.
_ASKED = {"family": "progress", "when": "allocate"}


@quantity(
    ALLOCATION,
    formula="integral over 0 <= s <= 1 of <grad_i f(x_{t-1} + s d_t; z), d_{t,i}>, i the tensor: what of the loss's "
    "change it made; negative where it lowered the loss",
    unit=LOSS,
    source=SOURCE,
    **_ASKED,
)
def allocation(path_integral: Column) -> Column:
    """integral_0^1 p_i(s) ds by the Gauss-Legendre rule, any sign, in units of the loss. Source: Lan et al."""
    return path_integral


@quantity(
    ALLOCATION,
    formula="the resolution of allocation, below which its sign is not certain: the highest Legendre component of the "
    "slope that the points tell, and rounding",
    unit=LOSS,
    range=">= 0",
    **_ASKED,
)
def allocation_resolution(
    path_remainder: Column, remainder_scale: Column, grad_sq: Column, step_sq: Column, relative_rounding: Column
) -> Column:
    """c_i max(1, k_t) + rho_t |g_{t,i}| |d_{t,i}|, >= 0, in units of the loss.

    c_i = |coefficient of p_i in the Legendre polynomial of degree N - 1|, the highest that N points tell: of a smooth
    slope the error of the rule, which is exact up to degree 2N - 1, is far smaller; at a kink it is of that size.
    k_t = (|path_integral - loss_change| - loss_change_resolution) / sum of all c_i: where the rule's error, which is
    known of all tensors together, is larger than the c_i tell, all are enlarged. rho_t = loss_change_resolution /
    (|f(x_t; z)| + |f(x_{t-1}; z)|), the rounding that was measured.
    """
    return abs(path_remainder) * remainder_scale + relative_rounding * (grad_sq * step_sq).sqrt()


@quantity(ALLOCATION, formula="running sum of allocation", unit=LOSS, source=SOURCE, **_ASKED)
def allocation_sum(allocation: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i allocation_i, over the rows i."""
    return running_sum(allocation, weights)


@quantity(
    ALLOCATION, formula=rows_formula("allocation_sum"), unit=LOSS, range=">= 0", family="progress",
    when=("allocate", "thinned"),
)  # fmt: skip
def allocation_sum_rows_se(allocation: Column, weights: Weights) -> Column:
    """rows_se of the terms allocation_i."""
    return sum_error(allocation, weights)


@quantity(
    ALLOCATION,
    formula="allocation_sum over the sum of all tensors: the share of the loss's change up to here; above 1, or "
    "negative, where others undo it",
    of_means=("allocation_sum", "every_sum"),
    unit=NONE,
    source=SOURCE,
    **_ASKED,
)
def allocation_share(allocation_sum: Column, every_sum: Column, every_error: Column) -> Column:
    """allocation_sum / sum over all tensors of allocation_sum, any sign; undefined where that is not above its own
    errors, for the choice of rows and over batches."""
    within = np.abs(every_sum.values) <= every_error.values
    share = allocation_sum.over(every_sum, "the loss's change is 0")
    return share.except_where(within, "the loss's change is within its error")


@quantity(
    ALLOCATION,
    formula="share of the updates up to here on which the tensor raised the loss; 0.5 is chance",
    unit=NONE,
    range="0 to 1",
    source=SOURCE,
    **_ASKED,
)
def raised(allocation: Column, allocation_limit: Column, weights: Weights) -> Column:
    """sum w_i [allocation_i > limit_i] / sum w_i over i <= t, 0 to 1; the limit is the resolution and, on probe
    batches, the standard error where that is larger. What is neither raised nor lowered is undetermined."""
    return _share(allocation, allocation_limit, weights, 1)


@quantity(
    ALLOCATION,
    formula="share of the updates up to here on which it lowered the loss; the rest is undetermined",
    unit=NONE,
    range="0 to 1",
    source=SOURCE,
    **_ASKED,
)
def lowered(allocation: Column, allocation_limit: Column, weights: Weights) -> Column:
    """sum w_i [allocation_i < -limit_i] / sum w_i over i <= t, 0 to 1."""
    return _share(allocation, allocation_limit, weights, -1)


def _share(allocation: Column, limit: Column, weights: Weights, sign: int) -> Column:
    judged = lift(lambda value, within: (signs(value, within) == sign).astype(np.float64), allocation, limit)
    return running_mean(judged, weights)


def rounding_of(resolution: Column, at_x: Column, at_y: Column) -> Column:
    """rho_t, >= 0: the resolution of f(x_t; z) - f(x_{t-1}; z) over |f(x_t; z)| + |f(x_{t-1}; z)|; 0 where both are
    0."""
    size = abs(at_x) + abs(at_y)
    return lift(lambda found, of: np.where(of > 0, found / np.where(of > 0, of, 1.0), 0.0), resolution, size)


def scale_of(integral: Column, change: Column, resolution: Column, remainders: Column) -> Column:
    """max(1, k_t), >= 1: by how much the rule's error is larger than the components that tell of it; 1 where those are
    0."""

    def scale(integral: np.ndarray, change: np.ndarray, resolution: np.ndarray, told: np.ndarray) -> np.ndarray:
        beyond = np.abs(integral - change) - resolution
        return np.where(told > 0, np.fmax(beyond / np.where(told > 0, told, 1.0), 1.0), 1.0)

    return lift(scale, integral, change, resolution, remainders)


def sum_of_absolutes(parts: list[list[float | None]], like: Column) -> Column:
    """sum over tensors of |a_i| [rows], >= 0, of `parts` [rows][tensors]; undefined where one is not there."""
    found = (None if None in row else sum(abs(each) for each in row if each is not None) for row in parts)
    return column(found, list(like.reasons))

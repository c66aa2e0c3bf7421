"""Differences in the second precision, and the resolutions of those that no report shows by themselves.

As metrics/resolution.py says. Letters: y = x_{t-1} or a reference x*, z the sample, one at both points; `second_...`
are the same evaluations in the second precision, on the rows that were evaluated in it.
"""

from __future__ import annotations

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import LOSS, NONE, REFERENCES, STEPS, Unit, quantity
from trajcheck.metrics.resolution import Rounding, resolution, terms_apart

BOTH = (STEPS, REFERENCES)


@quantity(*BOTH, formula="inst_gap in the second precision", unit=LOSS, hidden=True)
def second_gap(second_loss_at_x: Column, second_loss_at_y: Column, second_grad_dot_y: Column) -> Column:
    """f(x_t; z) - f(y; z) - <g_t, x_t - y>, all of the second precision."""
    return second_loss_at_x - second_loss_at_y - second_grad_dot_y


@quantity(
    STEPS,
    formula="|f(x_t; z) - that in the second precision| / |f(x_t; z)|",
    unit=NONE,
    range=">= 0",
    power=None,
    hidden=True,
)
def second_loss_error(row_loss: Column, second_row_loss: Column) -> Column:
    """|f - f'| / |f|, >= 0, f' in the second precision."""
    return abs(row_loss - second_row_loss).over(abs(row_loss), "the loss is 0")


@quantity(*BOTH, formula="the resolution of f(x_t; z) - f(y; z)", unit=LOSS, range="> 0", hidden=True)
def difference_resolution(
    loss_at_x: Column, loss_at_y: Column, second_loss_at_x: Column, second_loss_at_y: Column, rounding: Rounding
) -> Column:
    """That of f(x) - f(y), > 0, with the scale |f(x)| + |f(y)|."""
    scale = abs(loss_at_x) + abs(loss_at_y)
    apart = terms_apart((loss_at_x, second_loss_at_x), (loss_at_y, second_loss_at_y))
    second = second_loss_at_x - second_loss_at_y
    return resolution(loss_at_x - loss_at_y, second, apart, scale, scale, loss_at_x, rounding)


@quantity(STEPS, formula="the resolution of directional_smoothness's numerator", unit=LOSS, range="> 0", hidden=True)
def directional_resolution(
    loss_at_x: Column,
    loss_at_y: Column,
    previous_grad_dot_step: Column,
    second_loss_at_x: Column,
    second_loss_at_y: Column,
    second_previous_grad_dot_step: Column,
    rounding: Rounding,
) -> Column:
    """That of f(x) - f(y) - <grad f(y), x - y>, > 0, with the scale |f(x)| + |f(y)| + |<grad f(y), x - y>|."""
    losses = abs(loss_at_x) + abs(loss_at_y)
    numerator = loss_at_x - loss_at_y - previous_grad_dot_step
    second = second_loss_at_x - second_loss_at_y - second_previous_grad_dot_step
    apart = terms_apart(
        (loss_at_x, second_loss_at_x),
        (loss_at_y, second_loss_at_y),
        (previous_grad_dot_step, second_previous_grad_dot_step),
    )
    return resolution(numerator, second, apart, losses + abs(previous_grad_dot_step), losses, loss_at_x, rounding)


@quantity(
    *BOTH,
    formula="the resolution of |grad f(x_t; z) - grad f(y; z)|",
    unit=Unit(loss=1, length=-1),
    range="> 0",
    hidden=True,
    of_tensor=True,
)
def grad_change_resolution(
    grad_change_y: Column, second_grad_change_y: Column, grad_size: Column, row_loss: Column, rounding: Rounding
) -> Column:
    """That of |grad f(x) - grad f(y)|, > 0, with the scale 2 |grad f(x)| + |grad f(x) - grad f(y)|, which is not below
    |grad f(x)| + |grad f(y)|. Of one tensor it is that tensor's."""
    scale = 2 * grad_size + grad_change_y
    apart = terms_apart((grad_change_y, second_grad_change_y))
    return resolution(grad_change_y, second_grad_change_y, apart, scale, scale, row_loss, rounding)

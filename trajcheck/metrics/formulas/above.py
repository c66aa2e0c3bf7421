"""How far a loss lies above that at a reference x*, and above a lower bound of all losses.

Letters: D_t = f(x_t; z) - f(x*; z), both of one evaluator; f_inf a lower bound of the losses, 0 for losses that cannot
be negative, else given by the user (--loss-floor).
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.quantity import LOSS, REFERENCES, STEPS, quantity


@quantity(REFERENCES, formula="f(x_t; z) - f(x*; z)", unit=LOSS, hidden=True)
def excess(loss_at_x: Column, loss_at_y: Column) -> Column:
    """D_t = f(x_t; z) - f(x*; z), any sign, in units of the loss; difference_resolution is its resolution."""
    return loss_at_x - loss_at_y


@quantity(STEPS, REFERENCES, formula="f(x_t; z) - f_inf", unit=LOSS, range=">= 0", hidden=True)
def above_floor(loss_at_x: Column, loss_floor: Column) -> Column:
    """F_t = f(x_t; z) - f_inf, >= 0, in units of the loss; a loss that rounding puts below f_inf counts as f_inf."""
    return lift(lambda loss, floor: np.maximum(loss - floor, 0.0), loss_at_x, loss_floor)


@quantity(REFERENCES, formula="f(x*; z) - f_inf", unit=LOSS, range=">= 0", hidden=True)
def ref_above_floor(loss_at_y: Column, loss_floor: Column) -> Column:
    """f(x*; z) - f_inf = F_t - D_t, >= 0, in units of the loss; a loss that rounding puts below f_inf counts as
    f_inf."""
    return lift(lambda loss, floor: np.maximum(loss - floor, 0.0), loss_at_y, loss_floor)

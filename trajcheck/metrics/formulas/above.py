"""How far a loss lies above that at a reference x*, and above a lower bound of all losses.

Letters: D_t = f(x_t; z) - f(x*; z), both of one evaluator; f_inf a lower bound of the losses, 0 for losses that cannot
be negative, else given by the user (--loss-floor).
"""

from __future__ import annotations

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import LOSS, REFERENCES, quantity


@quantity(REFERENCES, formula="f(x_t; z) - f(x*; z)", unit=LOSS, hidden=True)
def excess(loss_at_x: Column, loss_at_y: Column) -> Column:
    """D_t = f(x_t; z) - f(x*; z), any sign, in units of the loss; difference_resolution is its resolution."""
    return loss_at_x - loss_at_y

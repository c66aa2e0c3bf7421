"""Losses at averages of recorded iterates (LAWA, arXiv 2209.14981; the river valley, arXiv 2410.05192).

Letters: avg_t an average of the recorded iterates up to x_t, sum_s w_s x_s with weights that sum to 1
(scalars/averages.py); all losses on one fixed sample, from one evaluator.
"""

from __future__ import annotations

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import AVERAGES, LOSS, given, quantity
from trajcheck.metrics.resolution import Rounding, resolution, terms_apart

LAWA, VALLEY = "LAWA, arXiv 2209.14981", "arXiv 2410.05192"

given("loss", AVERAGES, operand="loss_at_x", formula="f(x_t; z), by the evaluator of loss_avg", unit=LOSS)
given(
    *("loss_avg", AVERAGES),
    operand="loss_at_average",
    formula="f(avg_t; z), avg_t the average of the recorded iterates up to x_t",
    unit=LOSS,
    source=LAWA,
)


@quantity(
    AVERAGES,
    formula="f(x_t; z) - f(avg_t; z): how far above the valley the iterate is; negative where the average is worse",
    unit=LOSS,
    source=VALLEY,
)
def valley_height(loss_at_x: Column, loss_at_average: Column) -> Column:
    """f(x_t; z) - f(avg_t; z), any sign, in units of the loss."""
    return loss_at_x - loss_at_average


@quantity(
    AVERAGES,
    formula="the resolution of valley_height, as gap_resolution is found: below it the height has no certain sign",
    unit=LOSS,
    range="> 0",
)
def valley_height_resolution(
    valley_height: Column,
    loss_at_x: Column,
    loss_at_average: Column,
    second_loss_at_x: Column,
    second_loss_at_average: Column,
    rounding: Rounding,
) -> Column:
    """That of f(x_t; z) - f(avg_t; z), > 0, in units of the loss, measured on the rows that were evaluated in the
    second precision too (metrics/resolution.py)."""
    size = abs(loss_at_x) + abs(loss_at_average)
    apart = terms_apart((loss_at_x, second_loss_at_x), (loss_at_average, second_loss_at_average))
    second = second_loss_at_x - second_loss_at_average
    return resolution(valley_height, second, apart, size, size, loss_at_x, rounding)


@quantity(
    AVERAGES,
    formula="sum_s w_s f(x_s; z), the mean loss of the iterates that the average is of, by its weights",
    unit=LOSS,
)
def mean_loss(averaged_losses: Column) -> Column:
    """sum_s w_s f(x_s; z); undefined where an iterate of the average is on no row of the report."""
    return averaged_losses


@quantity(
    AVERAGES,
    formula="f(avg_t; z) - mean_loss: at most 0 where the loss is convex on the iterates' hull (Jensen's inequality)",
    unit=LOSS,
)
def jensen_gap(loss_at_average: Column, mean_loss: Column) -> Column:
    """f(sum_s w_s x_s; z) - sum_s w_s f(x_s; z), any sign, in units of the loss."""
    return loss_at_average - mean_loss


@quantity(
    AVERAGES,
    formula="the resolution of jensen_gap: that of valley_height, over its losses, of these",
    unit=LOSS,
    range="> 0",
)
def jensen_gap_resolution(
    valley_height_resolution: Column, loss_at_x: Column, loss_at_average: Column, mean_loss: Column
) -> Column:
    """r_t (|f(avg_t; z)| + |mean_loss_t|), > 0, r_t = valley_height_resolution / (|f(x_t; z)| + |f(avg_t; z)|)."""
    relative = valley_height_resolution.over(abs(loss_at_x) + abs(loss_at_average), "both losses are 0")
    return relative * (abs(loss_at_average) + abs(mean_loss))

"""How the gradient and the loss grow above a reference x*, and above a lower bound of all losses.

Letters: D_t = f(x_t; z) - f(x*; z), both of one evaluator; c_t = <g_t, e_t>; f_inf a lower bound of the losses, 0 for
losses that cannot be negative, else given by the user (--loss-floor).

Exact, on one row and one sample: pl qg = eb^2, quasar qg = 2 rsi; where D_t <= c_t, as on convex f, pl >= eb / 2 and
qg <= 2 rsi; on a quadratic towards its minimum quasar = 2, qg = rsi, and rsi, eb, pl and qg lie between its extreme
eigenvalues.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.batches import Batches
from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.formulas.noise import GRADIENT_SQ, UNDETERMINED, grad_true_sq
from trajcheck.metrics.formulas.secant import AT_REFERENCE
from trajcheck.metrics.quantity import CURVATURE, LOSS, NONE, REFERENCES, STEPS, quantity
from trajcheck.metrics.resolution import BOUND, Rounding, resolution, terms_apart

NOT_ABOVE = "f(x_t; z) is not above f(x*; z) by more than their resolution"
NOT_ABOVE_FLOOR = "f(x_t; z) is not above f_inf by more than its resolution"


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


@quantity(REFERENCES, formula="the resolution of f(x_t; z) - f_inf", unit=LOSS, range="> 0", hidden=True)
def floor_resolution(
    loss_at_x: Column, second_loss_at_x: Column, above_floor: Column, loss_floor: Column, rounding: Rounding
) -> Column:
    """That of f(x_t; z) - f_inf, > 0, as metrics/resolution.py says; f_inf is exact."""
    scale = abs(loss_at_x).along(above_floor)
    apart = terms_apart((loss_at_x, second_loss_at_x))
    return resolution(above_floor, second_loss_at_x - loss_floor, apart, scale, scale, loss_at_x, rounding)


@quantity(REFERENCES, formula="the resolution of <g_t, e_t>", unit=LOSS, range="> 0", hidden=True)
def dot_resolution(
    grad_dot_ref: Column,
    grad_sq: Column,
    ref_sq: Column,
    second_grad_dot_y: Column,
    row_loss: Column,
    gradient_epsilon: float,
    rounding: Rounding,
) -> Column:
    """That of <g_t, e_t>, > 0, with the scale |g_t| |e_t|; of recorded gradients 4 eps |g_t| |e_t|, eps that of their
    dtype in the files."""
    scale = grad_sq.sqrt() * ref_sq.sqrt()
    if not rounding.epsilon:
        return (BOUND * gradient_epsilon) * scale
    apart = terms_apart((grad_dot_ref, second_grad_dot_y))
    return resolution(grad_dot_ref, second_grad_dot_y, apart, scale, scale, row_loss, rounding)


@quantity(
    REFERENCES,
    formula="<g_t, e_t> / (f(x_t; z) - f(x*; z)), where that is above its resolution: quasar-convexity",
    of_means=("grad_dot_ref", "excess"),
    unit=NONE,
    source="Hinder et al., arXiv 1906.11985; Hardt et al., arXiv 1609.05191",
    family="convexity",
    chart=(26, "quasar-convexity ⟨g, e⟩ / (f − f*)"),
)
def quasar(grad_dot_ref: Column, excess: Column, difference_resolution: Column) -> Column:
    """quasar_t = c_t / D_t, any sign, no unit. A quasar-convex f has gamma <= quasar_t everywhere for some gamma > 0, a
    convex one gamma = 1. Undefined where D_t is not above its resolution. Over probe batches: of their mean function.
    Source: Hinder et al.; Hardt et al., weak quasi-convexity.
    """
    return grad_dot_ref.over(excess.except_where(excess.values <= difference_resolution.values, NOT_ABOVE), NOT_ABOVE)


@quantity(
    REFERENCES,
    formula="<g_t, e_t> / (f(x_t; z) - f_inf): aiming",
    of_means=("grad_dot_ref", "above_floor"),
    unit=NONE,
    power=None,
    source="Liu et al., arXiv 2306.02601",
    family="convexity",
    chart=(27, "aiming ⟨g, e⟩ / (f − f_inf)"),
)
def aiming(grad_dot_ref: Column, above_floor: Column, floor_resolution: Column) -> Column:
    """aiming_t = c_t / (f(x_t; z) - f_inf), any sign, no unit. The aiming condition: theta <= aiming_t for some
    theta > 0. Undefined where f_inf is not known (--loss-floor), and where the loss is not above it by more than its
    resolution. Over probe batches: of their mean function. Source: Liu et al.
    """
    above = above_floor.except_where(above_floor.values <= floor_resolution.values, NOT_ABOVE_FLOOR)
    return grad_dot_ref.over(above, NOT_ABOVE_FLOOR)


@quantity(REFERENCES, formula="|g_t|^2, on probe batches grad_true_sq", unit=GRADIENT_SQ, hidden=True, of_batches=True)
def grad_square(grad_sq: Column, probe_batches: Batches | None) -> dict[str, Column]:
    """|g_t|^2, >= 0, of one sample, with an error of 0; over probe batches the estimate of |grad f|^2 that has no noise
    in it, and its jackknife error."""
    if probe_batches is None:
        return {"": grad_sq, "_se": 0.0 * grad_sq}
    return grad_true_sq(probe_batches)


@quantity(
    REFERENCES,
    formula="|g_t|^2 / (2 (f(x_t; z) - f(x*; z))), where that is above its resolution: Polyak-Lojasiewicz; on own "
    "samples of a minibatch, whose |g_t|^2 has its noise's own square in it, on probe batches of grad_true_sq",
    of_means=("grad_square", "excess"),
    unit=CURVATURE,
    range=">= 0",
    source="Karimi et al., arXiv 1608.04636",
    family="convexity",
    chart=(28, "Polyak–Łojasiewicz |g|² / (2 (f − f*))"),
)
def pl(grad_square: Column, grad_square_se: Column, excess: Column, difference_resolution: Column) -> Column:
    """pl_t = |g_t|^2 / (2 D_t), >= 0, in loss / length^2: f satisfies the Polyak-Lojasiewicz inequality with mu where
    mu <= pl_t everywhere. Undefined where D_t is not above its resolution.

    |g_t|^2 of a minibatch is |grad f|^2 and the square of its noise, tr Sigma / B, on average: that of a minibatch is
    no constant of f. Over probe batches it is that of their mean function, of the estimate without noise; undefined
    where that is not above its error. Its own error is at most the sum of the relative errors of the two. Source:
    Karimi et al.
    """
    unsure = (grad_square_se.values > 0) & ~(grad_square.values > grad_square_se.values)
    above = excess.except_where(excess.values <= difference_resolution.values, NOT_ABOVE)
    return grad_square.except_where(unsure, UNDETERMINED).over(2.0 * above, NOT_ABOVE)


@quantity(
    REFERENCES,
    formula="2 (f(x_t; z) - f(x*; z)) / |e_t|^2: quadratic growth",
    unit=CURVATURE,
    source="Karimi et al., arXiv 1608.04636",
    family="convexity",
    chart=(29, "quadratic growth 2 (f − f*) / |e|²"),
)
def qg(excess: Column, ref_sq: Column) -> Column:
    """qg_t = 2 D_t / |e_t|^2, any sign, in loss / length^2: f grows quadratically from x* with mu where mu <= qg_t
    everywhere. Undefined where x_t = x*. Source: Karimi et al.
    """
    return (2.0 * excess).over(ref_sq, AT_REFERENCE)

"""Convexity between x_t and another point, quasar-convexity and aiming towards a reference x*.

Letters: c_t = <g_t, e_t>, D_t = f(x_t; z) - f(x*; z), f_inf a lower bound of the losses. What noise alone gives is that
of a loss <n_z, x>, n_z of mean 0 and independent of the iterates before step t.
"""

from __future__ import annotations

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Judged, with_error
from trajcheck.metrics.assumptions.noise import of_inner_product
from trajcheck.metrics.columns import Column
from trajcheck.metrics.formulas.secant import AT_REFERENCE
from trajcheck.metrics.quantity import REFERENCES, STEPS


@assumption(
    REFERENCES,
    STEPS,
    name="convex",
    title="convexity (star-convexity towards x*)",
    formula="f(x_t; z) - f(y; z) - <g_t, x_t - y> <= 0",
    constants={"gap": "f(x_t; z) - f(y; z) - <g_t, x_t - y>"},
    extreme="largest",
    source="TZC",
)
def convex(
    inst_gap: Column, gap_resolution: Column, inst_gap_se: Column | None = None, ref_dist: Column | None = None
) -> Judged:
    """The gap is the margin, in units of the loss. Noise that is linear in x adds the same to both sides, on any
    sample. x* itself is neither."""
    if ref_dist is not None:
        inst_gap = inst_gap.except_where(ref_dist.values == 0, AT_REFERENCE)
    return Judged(inst_gap, inst_gap, with_error(gap_resolution, inst_gap_se), 0.0)


@assumption(
    REFERENCES,
    name="quasar",
    title="quasar-convexity (weak quasi-convexity) towards x*",
    formula="<g_t, x_t - x*> >= gamma (f(x_t; z) - f(x*; z)), gamma > 0, where f(x_t; z) > f(x*; z)",
    constants={"gamma": "<g_t, x_t - x*> / (f(x_t; z) - f(x*; z))"},
    extreme="smallest",
    source="Hinder et al., arXiv 1906.11985; Hardt et al., arXiv 1609.05191",
)
def quasar(
    quasar: Column, grad_dot_ref: Column, dot_resolution: Column, grad_dot_ref_se: Column | None = None
) -> Judged:
    """The margin is -c_t, on rows with D_t above its resolution; on the others nothing is asked. Noise that is linear
    in x is both c_t and D_t: it gives 1."""
    margin = (-grad_dot_ref).along(quasar)
    return Judged(quasar, margin, with_error(dot_resolution, grad_dot_ref_se), 1.0)


@assumption(
    REFERENCES,
    name="aiming",
    title="the aiming condition towards x*",
    formula="<g_t, x_t - x*> >= theta (f(x_t; z) - f_inf), theta > 0",
    constants={"theta": "<g_t, x_t - x*> / (f(x_t; z) - f_inf)"},
    extreme="smallest",
    source="Liu et al., arXiv 2306.02601",
)
def aiming(
    aiming: Column,
    grad_dot_ref: Column,
    dot_resolution: Column,
    ref_dist: Column,
    above_floor: Column,
    sample: str,
    one_batch: bool,
    grad_dot_ref_se: Column | None = None,
    rsi_floor: Column | None = None,
) -> Judged:
    """The margin is -c_t, on rows whose loss is above f_inf. Noise: that of c_t, eta_t |g_t|^2 towards a later iterate
    under plain SGD, over f(x_t; z) - f_inf."""
    noise = of_inner_product(sample, one_batch, rsi_floor)
    if isinstance(noise, Column):
        noise = (noise * ref_dist * ref_dist).over(above_floor, "the loss is f_inf")
    aiming = aiming.except_where(ref_dist.values == 0, AT_REFERENCE)
    return Judged(aiming, (-grad_dot_ref).along(aiming), with_error(dot_resolution, grad_dot_ref_se), noise)

"""Convexity between x_t and another point (TZC, arXiv 2407.01825)."""

from __future__ import annotations

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Judged, with_error
from trajcheck.metrics.columns import Column
from trajcheck.metrics.formulas.secant import AT_REFERENCE
from trajcheck.metrics.quantity import REFERENCES, STEPS


@assumption(
    REFERENCES,
    STEPS,
    name="convex",
    title="convexity (star-convexity towards x*)",
    formula="f(x_t; z) - f(y; z) - <g_t, x_t - y> <= 0",
    constants={"gap": "the largest gap"},
    extreme="largest",
    source="TZC",
)
def convex(
    inst_gap: Column, gap_resolution: Column, inst_gap_se: Column | None = None, ref_dist: Column | None = None
) -> Judged:
    """The gap is the margin, in units of the loss. A noise that is linear in x adds the same to both sides of the
    inequality: it gives 0. x* itself is neither."""
    if ref_dist is not None:
        inst_gap = inst_gap.except_where(ref_dist.values == 0, AT_REFERENCE)
    return Judged(inst_gap, inst_gap, with_error(gap_resolution, inst_gap_se), 0.0)

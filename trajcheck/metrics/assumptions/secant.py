"""The restricted secant inequality and the error bound towards a reference x* (NWT, arXiv 2306.11922)."""

from __future__ import annotations

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Judged, with_error
from trajcheck.metrics.assumptions.noise import of_inner_product
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import REFERENCES

OF_ITS_OWN = "any row satisfies it with a constant of its own"


@assumption(
    REFERENCES,
    name="rsi",
    title="the restricted secant inequality towards x*",
    formula="<g_t, x_t - x*> >= mu |x_t - x*|^2, mu > 0",
    constants={"mu": "<g_t, x_t - x*> / |x_t - x*|^2"},
    extreme="smallest",
    source="NWT",
)
def rsi(
    rsi: Column,
    grad_dot_ref: Column,
    dot_resolution: Column,
    sample: str,
    one_batch: bool,
    grad_dot_ref_se: Column | None = None,
    rsi_floor: Column | None = None,
) -> Judged:
    """The margin is -<g_t, e_t>."""
    margin = (-grad_dot_ref).along(rsi)
    return Judged(
        rsi, margin, with_error(dot_resolution, grad_dot_ref_se), of_inner_product(sample, one_batch, rsi_floor)
    )


@assumption(
    REFERENCES,
    name="eb",
    title="the error bound towards x*",
    formula="|g_t| <= L |x_t - x*|",
    constants={"L": "|g_t| / |x_t - x*|"},
    extreme="largest",
    source="NWT",
)
def eb(eb: Column) -> Judged:
    """A constant alone."""
    noise = "noise alone has the norms that were recorded: it would give the same"
    return Judged(eb, noise=noise, unjudged=OF_ITS_OWN)

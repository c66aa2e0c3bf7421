"""Orthogonal memory (NWT, arXiv 2306.11922): do gradients k steps apart point the same way, beside the direction of x*?

Letters: g, e the gradient and x - x* at step t, g', e' those at step t + k.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.formulas.secant import AT_REFERENCE, NO_GRADIENT
from trajcheck.metrics.quantity import NONE, REFERENCES, Unit, given, quantity

#: |p|^2 / |g|^2 below which the part p of a gradient g orthogonal to e is rounding.
ROUNDING = 1e-13

#: Times the rounding of what was recorded below which an orthogonal part is taken for it.
SAFETY = 16.0


@quantity(
    REFERENCES,
    formula="cos(p_t, p_{t+k}) for each k of --memory-lags, p_t the part of g_t orthogonal to e_t",
    unit=NONE,
    range="[-1, 1]",
    symbol="memory_k",
    source="NWT",
    family="secant",
    when=("own", "lags"),
)
def memory_(lag_products: Mapping[int, Mapping[str, Column]]) -> dict[str, Column]:
    """memory_cos for each lag; `lag_products` as of scalars/values.LagScalars."""
    return {str(lag): memory_cos(**products) for lag, products in lag_products.items()}


def memory_cos(
    grad_sq: Column,
    grad_dot_ref: Column,
    ref_sq: Column,
    later_grad_sq: Column,
    later_grad_dot_ref: Column,
    later_ref_sq: Column,
    grad_dot_later_grad: Column,
    grad_dot_later_ref: Column,
    ref_dot_later_grad: Column,
    ref_dot_later_ref: Column,
    rounding: Column,
) -> Column:
    """cos(p, p'), in [-1, 1], of p = g - (<g, e> / |e|^2) e, and p' the same at step t + k.

    1: beside the direction of x*, the gradient still points where it pointed k steps before. Undefined where |p|^2 or
    |p'|^2 is within SAFETY `rounding` |g|^2: 0 but for the rounding of what was recorded. Source: NWT.
    """
    gg, gg2, ee, ee2 = (each.values for each in (grad_sq, later_grad_sq, ref_sq, later_ref_sq))
    ge, ge2 = grad_dot_ref.values, later_grad_dot_ref.values
    dot, g_e2 = grad_dot_later_grad.values, grad_dot_later_ref.values
    e_g2, e_e2 = ref_dot_later_grad.values, ref_dot_later_ref.values
    with np.errstate(all="ignore"):
        a, b = ge / ee, ge2 / ee2
        p_sq, p2_sq = gg - a * ge, gg2 - b * ge2
        limit = np.maximum(ROUNDING, SAFETY * rounding.values)
        cosine = (dot - b * g_e2 - a * e_g2 + a * b * e_e2) / (np.sqrt(p_sq) * np.sqrt(p2_sq))
        nothing = (p_sq <= limit * gg) | (p2_sq <= limit * gg2)
    known = grad_sq.except_where((gg == 0) | (gg2 == 0), NO_GRADIENT).except_where((ee == 0) | (ee2 == 0), AT_REFERENCE)
    known = known.except_where(nothing, "a gradient lies along x - x*, and nothing of it is orthogonal")
    return Column(np.where(known.defined, cosine, np.nan), known.reasons)


given(
    *("update_dot_ref", REFERENCES),
    operand="next_dot_ref",
    formula="<d_{t+1}, e_t>: what the optimizer really did towards x*",
    unit=Unit(length=2),
    symbol="<d_{t+1}, e_t>",
    family="secant",
    of_tensor=True,
    of_sample=False,
    chart=(15, "⟨update, x_t − x*⟩"),
)

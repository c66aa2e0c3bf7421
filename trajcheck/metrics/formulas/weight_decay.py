"""Secant quantities of g_t + lambda x_t, lambda the weight decay of each parameter (NWT, arXiv 2306.11922).

Of the regularised objective, if the decay is coupled. With decoupled decay (AdamW) it is no objective's gradient, as
the report says.
"""

from __future__ import annotations

from trajcheck.metrics.columns import Column
from trajcheck.metrics.formulas.secant import AT_REFERENCE, cosine
from trajcheck.metrics.quantity import CURVATURE, NONE, REFERENCES, quantity


@quantity(
    REFERENCES,
    formula="rsi of g_t + lambda x_t, lambda the weight decay",
    unit=CURVATURE,
    power=None,
    source="NWT",
    family="secant",
    of_tensor=True,
    when="decay",
    chart=(21, "rsi with weight decay"),
)
def rsi_wd(regularised_dot_ref: Column, ref_sq: Column) -> Column:
    """<g_t + lambda x_t, e_t> / |e_t|^2, as rsi."""
    return regularised_dot_ref.over(ref_sq, AT_REFERENCE)


@quantity(
    REFERENCES,
    formula="eb of g_t + lambda x_t",
    unit=CURVATURE,
    range=">= 0",
    power=None,
    source="NWT",
    family="secant",
    of_tensor=True,
    when="decay",
    chart=(22, "eb with weight decay"),
)
def eb_wd(regularised_sq: Column, ref_sq: Column) -> Column:
    """|g_t + lambda x_t| / |e_t|, as eb."""
    return regularised_sq.sqrt().over(ref_sq.sqrt(), AT_REFERENCE)


@quantity(
    REFERENCES,
    formula="cos of g_t + lambda x_t",
    unit=NONE,
    range="[-1, 1]",
    source="NWT",
    family="secant",
    of_tensor=True,
    when="decay",
    chart=(20, "cos with weight decay"),
)
def cos_wd(regularised_dot_ref: Column, regularised_sq: Column, ref_sq: Column) -> Column:
    """<g_t + lambda x_t, e_t> / (|g_t + lambda x_t| |e_t|), as cos."""
    return cosine(regularised_dot_ref, regularised_sq, ref_sq)

"""Sums over ALL steps of a run, recorded or not, from what the Recorder kept between records (windows=True).

Letters: g_i = grad f(x_i; z_i); record k is the one before, and a window the steps k <= i < t.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import LOSS, REFERENCES, STEPS, Unit, quantity


@quantity(
    REFERENCES,
    formula="for runs recorded with windows=True: sum of <g_i, x_i - x*> over ALL steps i < t, recorded or not",
    unit=LOSS,
    source="TZC",
    family="convexity",
    when=("own", "windows"),
    chart=(23, "numerator over all steps"),
)
def window_num(window_terms: Column, window_rounding: Column) -> Column:
    """sum_{i<t} <g_i, x_i - x*>, the numerator of the convexity ratio over all steps, exact for any x*.

    A record's term is s + <G, x_k - x*>, G = sum g_i and s = sum <g_i, x_i - x_k> over the steps k <= i < t since
    record k. Undefined from the first term on that is missing, and where it is below what rounding can make of G, which
    is summed in float32 beside float32 parameters. Source: TZC's numerator.
    """
    return _resolved(window_terms, window_rounding)


@quantity(
    REFERENCES,
    formula="the same with the iterate at the end of each window: sum of <G, x_t - x*>",
    unit=LOSS,
    family="convexity",
    when=("own", "windows"),
)
def window_num_skip(window_skip_terms: Column, window_skip_rounding: Column) -> Column:
    """sum of <G, x_t - x*>, in which no gradient meets an iterate that its own sample did not yet enter. Undefined as
    window_num is."""
    return _resolved(window_skip_terms, window_skip_rounding)


@quantity(
    STEPS, formula="sum of f(x_i; z_i) over all steps i < t", unit=LOSS, family="convexity", when=("own", "all_losses")
)
def window_loss_sum(window_losses: Column) -> Column:
    """sum_{i<t} f(x_i; z_i), recorded or not."""
    return window_sum(window_losses)


@quantity(
    STEPS,
    formula="sum of |g_i|^2 over all steps i < t",
    unit=Unit(loss=2, length=-2),
    range=">= 0",
    family="convexity",
    when=("own", "windows"),
)
def window_grad_sq_sum(window_grad_squares: Column) -> Column:
    """sum_{i<t} |g_i|^2, recorded or not."""
    return window_sum(window_grad_squares)


def _resolved(terms: Column, rounding: Column) -> Column:
    found, least = window_sum(terms), window_sum(rounding)
    return found.except_where(np.abs(found.values) < least.values, "the sum is below what its rounding can make")


def window_sum(terms: Column) -> Column:
    """Sums over all steps i < t, from one term per record: that of the steps since the record before (0 in the first).
    Undefined from the first term on that is missing."""
    if not terms.defined.any():
        return terms
    values = np.cumsum(terms.values)
    lost = np.flatnonzero(~terms.defined)
    since = str(terms.reasons[lost[0]]) if len(lost) else ""
    reasons = np.where(terms.defined, f"an earlier part of the sum is missing: {since}", terms.reasons)
    return Column(values, np.where(np.isnan(values), reasons, "").astype(object))

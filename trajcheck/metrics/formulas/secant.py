"""Secant quantities towards a reference x* (NWT, arXiv 2306.11922).

Letters: g_t = grad f(x_t; z_t), e_t = x_t - x*, eta_t the learning rate, s a record after t.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import CURVATURE, LOSS, NONE, RATE, REFERENCES, given, quantity
from trajcheck.metrics.weights import Weights

AT_REFERENCE = "x_t is the reference itself"
NO_GRADIENT = "the gradient is 0"

#: Of a quantity that promises nothing where steps are not along -g_t: where that is so, and why in words.
NotAlong = tuple[np.ndarray, np.ndarray]

given(
    *("grad_dot_ref", REFERENCES),
    formula="<g_t, e_t>",
    unit=LOSS,
    symbol="<g_t, e_t>",
    source="NWT",
    family=("convexity", "secant"),
    of_tensor=True,
)


@quantity(
    REFERENCES,
    formula="<g_t, e_t> / |e_t|^2: restricted secant inequality",
    unit=CURVATURE,
    source="NWT",
    family="secant",
    of_tensor=True,
    chart=(11, "restricted secant inequality"),
)
def rsi(grad_dot_ref: Column, ref_sq: Column) -> Column:
    """rsi_t = <g_t, e_t> / |e_t|^2, the restricted secant inequality's constant at t; any sign, in loss / length^2.

    Positive: a small step against g_t comes nearer to x*. Undefined where x_t = x*. Source: NWT.
    """
    return grad_dot_ref.over(ref_sq, AT_REFERENCE)


@quantity(
    REFERENCES,
    formula="|g_t| / |e_t|: error bound",
    unit=CURVATURE,
    range=">= 0",
    source="NWT",
    family="secant",
    of_tensor=True,
    chart=(12, "error bound"),
)
def eb(grad_sq: Column, ref_sq: Column) -> Column:
    """eb_t = |g_t| / |e_t|, the error bound's constant at t; >= 0, in loss / length^2.

    Undefined where x_t = x*. Source: NWT.
    """
    return grad_sq.sqrt().over(ref_sq.sqrt(), AT_REFERENCE)


@quantity(
    REFERENCES,
    formula="<g_t, e_t> / (|g_t| |e_t|) = rsi / eb",
    unit=NONE,
    range="[-1, 1]",
    source="NWT",
    family="secant",
    of_tensor=True,
    chart=(1, "cosine of the gradient and x_t − x*"),
)
def cos(grad_dot_ref: Column, grad_sq: Column, ref_sq: Column) -> Column:
    """<g_t, e_t> / (|g_t| |e_t|) = rsi / eb, in [-1, 1].

    Towards a later iterate of the same run it holds the step's own term: pure noise gives cos_floor, not 0.
    Undefined where e_t or g_t is 0. Source: NWT.
    """
    return cosine(grad_dot_ref, grad_sq, ref_sq)


def cosine(grad_dot: Column, grad_sq: Column, distance_sq: Column, at_reference: str = AT_REFERENCE) -> Column:
    """<g, e> / (|g| |e|), in [-1, 1]; undefined where e or g is 0."""
    norm = grad_sq.sqrt().except_where(grad_sq.values == 0, NO_GRADIENT)
    return grad_dot.over(norm * distance_sq.sqrt(), at_reference)


@quantity(
    REFERENCES,
    formula="eta_t / sqrt(sum of eta_i^2 from t up to x*): what pure noise gives for cos; plain SGD",
    unit=NONE,
    range="(0, 1]",
    family="secant",
    when="own",
    chart=(3, "what pure noise gives for cos (plain SGD)"),
)
def cos_floor(floor_lr: Column, eta_squares_to_ref: Column) -> Column:
    """eta_t / sqrt( sum_{t<=i<r} eta_i^2 ), in (0, 1]: the cos_t towards x* = x_r that pure noise gives under plain
    SGD.

    With a constant rate 1 / sqrt(r - t). For g_i independent, of mean 0 and equal norm, x_t - x_r = sum eta_i g_i
    contains the step's own eta_t g_t. Undefined for other optimizers, and unless x* is a later iterate of the same
    run.
    """
    return floor_lr.over(eta_squares_to_ref.sqrt(), "the learning rate is 0 up to the reference")


@quantity(
    REFERENCES,
    formula="cos(g_t, x_s - x*), s the first record at least --skip steps after t: free of the step's own term",
    unit=NONE,
    range="[-1, 1]",
    family="secant",
    of_tensor=True,
    when="own",
    chart=(2, "the same without the step's own term"),
)
def cos_skip(grad_dot_skip: Column, grad_sq: Column, skip_sq: Column) -> Column:
    """<g_t, x_s - x*> / (|g_t| |x_s - x*|), in [-1, 1], s the next record or a later one (--skip).

    x_s - x* holds no term of the step's own, which cos_t towards a later iterate of the same run does. Undefined where
    g_t is 0 or x_s is x*; towards points that do not depend on the step, for which cos is free of it already.
    """
    return cosine(grad_dot_skip, grad_sq, skip_sq, "x_s is the reference itself")


@quantity(
    REFERENCES,
    formula="<g_t, e_t> / |g_t|^2 = rsi / eb^2: the SGD step that comes nearest to x*; not for momentum or Adam",
    unit=RATE,
    source="NWT",
    family="secant",
    of_tensor=True,
    chart=(14, "prescribed learning rate, single rows"),
)
def lo_lr(grad_dot_ref: Column, grad_sq: Column, not_along: NotAlong) -> Column:
    """lo_lr_t = rsi / eb^2 = <g_t, e_t> / |g_t|^2: the learning rate at which an SGD step comes nearest to x*.

    Any sign, in length^2 / loss; that step contracts |e_t|^2 by 1 - cos_t^2. It promises nothing for momentum or Adam,
    whose steps are not along g_t. Undefined where g_t = 0. Source: NWT.
    """
    return grad_dot_ref.over(grad_sq, NO_GRADIENT).except_where(*not_along)


@quantity(
    REFERENCES,
    formula="sum of w <g, e> / sum of w |g|^2 over --smoothing rows: the schedule that the path prescribes",
    unit=RATE,
    source="NWT",
    family="secant",
    chart=(13, "prescribed learning rate, over a window"),
)
def lo_lr_smooth(
    grad_dot_ref: Column, grad_sq: Column, weights: Weights, smoothing: int, not_along: NotAlong
) -> Column:
    """sum w <g, e> / sum w |g|^2 over the `smoothing` rows around t: the one learning rate by which SGD steps from
    these points would come nearest to x*, in length^2 / loss; any sign.

    The schedule that the run's own path prescribes, to be held against the one that was used. Near the ends the window
    is what is left of it, and rows on which lo_lr is undefined count for nothing; it is
    undefined there too. Source: NWT's LOLR, averaged.
    """
    here = grad_dot_ref.along(grad_sq)
    defined = here.defined & (grad_sq.values != 0) & ~not_along[0]
    weight = weights.of(defined)
    top = _windowed(np.where(defined, weight * here.values, 0.0), smoothing)
    bottom = _windowed(np.where(defined, weight * grad_sq.values, 0.0), smoothing)
    with np.errstate(all="ignore"):
        values = np.where(defined, top / bottom, np.nan)
    reasons = here.except_where(grad_sq.values == 0, NO_GRADIENT).except_where(*not_along).reasons
    return Column(values, reasons)


def _windowed(values: np.ndarray, rows: int) -> np.ndarray:
    """Sums over centred windows of at most `rows` rows."""
    before, after = (rows - 1) // 2, rows // 2
    return np.array([values[max(0, i - before) : i + after + 1].sum() for i in range(len(values))])


@quantity(
    REFERENCES,
    formula="the learning rate that was used, beside the prescribed one; where lo_lr is given",
    unit=RATE,
    range=">= 0",
    symbol="eta_t",
    power=0,
    family="secant",
    of_sample=False,
)
def lr(recorded_lr: Column, not_along: NotAlong) -> Column:
    """eta_t, the rate of the update from x_t; undefined where lo_lr promises nothing."""
    return recorded_lr.except_where(*not_along)


@quantity(
    REFERENCES,
    formula="1 - mu^2/L^2, mu the smallest rsi and L the largest eb so far: how a step of rate mu/L^2 would contract "
    "|x - x*|^2; plain SGD",
    unit=NONE,
    range="[0, 1)",
    source="NWT",
    family="secant",
    when="own",
    chart=(24, "contraction that rsi and eb imply"),
)
def implied_rate(rsi: Column, eb: Column, not_along_so_far: NotAlong) -> Column:
    """1 - mu^2 / L^2, mu the smallest rsi and L the largest eb up to t, in [0, 1).

    Where rsi >= mu > 0 and eb <= L along the path, SGD steps of mu / L^2 contract |x - x*|^2 by this factor or less
    each. Undefined from the first row on whose rsi is not positive, and from the first step that is not along -g_t.
    Source: NWT.
    """
    here = rsi.along(eb)
    mu = np.minimum.accumulate(np.where(here.defined, here.values, np.inf))
    largest = np.maximum.accumulate(np.where(here.defined, eb.values, 0.0))
    with np.errstate(all="ignore"):
        values = 1 - (mu / largest) ** 2
    rate = Column(np.where(here.defined, values, np.nan), here.reasons)
    rate = rate.except_where(mu <= 0, "mu, the smallest rsi so far, is not positive: no rate follows")
    return rate.except_where(*not_along_so_far)

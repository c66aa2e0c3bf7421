"""Secant quantities towards a reference x* (NWT, arXiv 2306.11922).

Letters: g_t = grad f(x_t; z_t), e_t = x_t - x*, eta_t the learning rate, s a record after t.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column

AT_REFERENCE = "x_t is the reference itself"
NO_GRADIENT = "the gradient is 0"

#: |p|^2 / |g|^2 below which the part p of a gradient g orthogonal to e is rounding.
ROUNDING = 1e-13

#: Times the rounding of what was recorded below which an orthogonal part is taken for it.
SAFETY = 16.0


def rsi(grad_dot_ref: Column, ref_sq: Column) -> Column:
    """rsi_t = <g_t, e_t> / |e_t|^2, the restricted secant inequality's constant at t; any sign, in loss / length^2.

    Positive: a small step against g_t comes nearer to x*. Undefined where x_t = x*. Source: NWT.
    """
    return grad_dot_ref.over(ref_sq, AT_REFERENCE)


def eb(grad_sq: Column, ref_sq: Column) -> Column:
    """eb_t = |g_t| / |e_t|, the error bound's constant at t; >= 0, in loss / length^2.

    Undefined where x_t = x*. Source: NWT.
    """
    return grad_sq.sqrt().over(ref_sq.sqrt(), AT_REFERENCE)


def cos(grad_dot: Column, grad_sq: Column, distance_sq: Column, at_reference: str = AT_REFERENCE) -> Column:
    """<g_t, e> / (|g_t| |e|), in [-1, 1]; with e = e_t it is rsi / eb.

    Towards a later iterate of the same run it holds the step's own term: pure noise gives cos_floor, not 0. With
    e = x_s - x*, s the next record (cos_skip), that term is gone. Undefined where e or g_t is 0.
    Source: NWT.
    """
    norm = grad_sq.sqrt().except_where(grad_sq.values == 0, NO_GRADIENT)
    return grad_dot.over(norm * distance_sq.sqrt(), at_reference)


def lo_lr(grad_dot_ref: Column, grad_sq: Column) -> Column:
    """lo_lr_t = rsi / eb^2 = <g_t, e_t> / |g_t|^2: the learning rate at which an SGD step comes nearest to x*.

    Any sign, in length^2 / loss; that step contracts |e_t|^2 by 1 - cos_t^2. It promises nothing for momentum or Adam,
    whose steps are not along g_t. Undefined where g_t = 0. Source: NWT.
    """
    return grad_dot_ref.over(grad_sq, NO_GRADIENT)


def cos_floor(eta: Column, eta_squares_to_ref: Column) -> Column:
    """eta_t / sqrt( sum_{t<=i<r} eta_i^2 ), in (0, 1]: the cos_t towards x* = x_r that pure noise gives under plain
    SGD.

    With a constant rate 1 / sqrt(r - t). For g_i independent, of mean 0 and equal norm, x_t - x_r = sum eta_i g_i
    contains the step's own eta_t g_t. Undefined for other optimizers, and unless x* is a later iterate of the same
    run.
    """
    return eta.over(eta_squares_to_ref.sqrt(), "the learning rate is 0 up to the reference")


def lo_lr_smooth(grad_dot_ref: Column, grad_sq: Column, weights: np.ndarray, rows: int) -> Column:
    """sum w <g, e> / sum w |g|^2 over the `rows` rows around t: the one learning rate by which SGD steps from these
    points would come nearest to x*, in length^2 / loss; any sign.

    The schedule that the run's own path prescribes, to be held against the one that was used. Near the ends the window
    is what is left of it. Undefined where lo_lr is. Source: NWT's LOLR, averaged.
    """
    here = grad_dot_ref.along(grad_sq)
    defined = here.defined & (grad_sq.values != 0)
    top = _windowed(np.where(defined, weights * here.values, 0.0), rows)
    bottom = _windowed(np.where(defined, weights * grad_sq.values, 0.0), rows)
    with np.errstate(all="ignore"):
        values = np.where(defined, top / bottom, np.nan)
    return Column(values, here.except_where(~defined, NO_GRADIENT).reasons)


def _windowed(values: np.ndarray, rows: int) -> np.ndarray:
    """Sums over centred windows of at most `rows` rows."""
    before, after = (rows - 1) // 2, rows // 2
    return np.array([values[max(0, i - before) : i + after + 1].sum() for i in range(len(values))])


def implied_rate(rsi: Column, eb: Column) -> Column:
    """1 - mu^2 / L^2, mu the smallest rsi and L the largest eb up to t, in [0, 1).

    Where rsi >= mu > 0 and eb <= L along the path, SGD steps of mu / L^2 contract |x - x*|^2 by this factor or less
    each. Undefined from the first row on whose rsi is not positive. Source: NWT.
    """
    here = rsi.along(eb)
    mu = np.minimum.accumulate(np.where(here.defined, here.values, np.inf))
    largest = np.maximum.accumulate(np.where(here.defined, eb.values, 0.0))
    with np.errstate(all="ignore"):
        values = 1 - (mu / largest) ** 2
    rate = Column(np.where(here.defined, values, np.nan), here.reasons)
    return rate.except_where(mu <= 0, "mu, the smallest rsi so far, is not positive: no rate follows")


def memory_cos(
    one: tuple[float, float, float],
    other: tuple[float, float, float],
    across: tuple[float, ...],
    rounding: float = 0.0,
) -> float | None:
    """cos(p, p'), in [-1, 1], of p = g_t - (<g_t, e_t> / |e_t|^2) e_t, and p' the same at step t + k.

    1: beside the direction of x*, the gradient still points where it pointed k steps before. `one` and `other` are
    (|g|^2, <g, e>, |e|^2) at the two steps, `across` is (<g, g'>, <g, e'>, <e, g'>, <e, e'>). None where |p|^2
    or |p'|^2 is within SAFETY `rounding` |g|^2: 0 but for the rounding of what was recorded. Source: NWT.
    """
    (gg, ge, ee), (gg2, ge2, ee2) = one, other
    dot, g_e2, e_g2, e_e2 = across
    a, b = ge / ee, ge2 / ee2
    p_sq, p2_sq = gg - a * ge, gg2 - b * ge2
    limit = max(ROUNDING, SAFETY * rounding)
    if p_sq <= limit * gg or p2_sq <= limit * gg2:
        return None
    return float((dot - b * g_e2 - a * e_g2 + a * b * e_e2) / (p_sq**0.5 * p2_sq**0.5))


def mean_with_error(values: Column, weights: np.ndarray) -> tuple[float, float | None] | None:
    """Weighted mean over the defined rows, and its standard error by batch means; None where no row is defined.

    Neighbouring rows are correlated, so the rows are cut into about sqrt(n) consecutive batches (n rows, at least 4
    batches of at least 2), and the error is that of the mean of the batches' means. With fewer than 8 rows there is no
    error.
    """
    here = values.defined & (weights > 0)
    value, weight = values.values[here], weights[here]
    if not len(value):
        return None
    mean = float(np.average(value, weights=weight))
    if len(value) < 8:
        return mean, None
    parts = np.array_split(np.arange(len(value)), max(4, round(len(value) ** 0.5)))
    masses = np.array([weight[part].sum() for part in parts])
    means = np.array([np.average(value[part], weights=weight[part]) for part in parts])
    share = masses / masses.sum()
    count = len(parts)
    variance = count / (count - 1) * float((share**2 * (means - mean) ** 2).sum())
    return mean, variance**0.5

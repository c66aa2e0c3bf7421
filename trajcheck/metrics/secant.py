"""Secant quantities towards a reference x* (NWT, arXiv 2306.11922).

Letters: g_t = grad f(x_t; z_t), e_t = x_t - x*, eta_t the learning rate, s a record after t.
"""

from __future__ import annotations

import numpy as np

from trajcheck.columns import Column

AT_REFERENCE = "x_t is the reference itself"
NO_GRADIENT = "the gradient is 0"


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

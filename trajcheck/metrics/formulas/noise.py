"""Noise between several batches of one row, at one point: probe batches, or the micro-batches of an accumulated step.

Letters: g_b the gradient on batch b of m, of B_b examples; G2 = ( |sum_b g_b|^2 - sum_b |g_b|^2 ) / (m (m - 1)), the
mean over pairs of <g_a, g_b>, which estimates |grad f|^2 without bias whatever the noise and the sizes of the batches;
S2 = sum_b |g_b|^2. Errors are those of the delete-one jackknife (metrics/batches.py).
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.batches import Batches, Sums
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import NONE, STEPS, Unit, quantity

GRADIENT_SQ = Unit(loss=2, length=-2)

NO_GRADIENTS = "the gradients of all batches are 0"
A_ZERO = "the gradient of one of the batches is 0: it has no direction"
UNDETERMINED = "|grad f|^2 is undetermined: its estimate is not above its jackknife error"
NO_ERROR = "|grad f|^2 is undetermined: two batches leave its estimate without an error"
ON_ONE = "|grad f|^2 is undetermined: without one of the batches its estimate is not above 0"
NO_SIZE = "how many examples a batch has is not known: its tensors have no first axis in common"
UNEQUAL = "batches of unequal size, of a loss that is not known to be a mean over their examples"
NO_MEAN = "the loss is not known to be a mean over the examples of a batch"
A_SUM = "the loss is a sum over the examples of a batch, not their mean"
ROUNDED = "what the batches' gradients differ by is not above the rounding of their squares"

#: Of the mean of |g_b|^2, what its difference from G2 may be off by.
ROUNDING = 64 * 2.0**-52

#: Rows on which a column is not given, and why.
Except = tuple[np.ndarray, str]


def true_sq(sums: Sums) -> np.ndarray:
    """G2, any sign."""
    return np.asarray((sums.sum_sq - sums.squares) / (sums.m * (sums.m - 1)))


def share_of_noise(sums: Sums) -> np.ndarray:
    """S2/m - G2: what noise adds to |g|^2, tr Sigma times the mean of 1 / B_b."""
    return np.asarray(sums.squares / sums.m - true_sq(sums))


def trace(sums: Sums) -> np.ndarray:
    """tr Sigma: B (S2/m - G2), B the harmonic mean of the sizes."""
    return np.asarray(share_of_noise(sums) * sums.m / sums.inverse_sizes)


def _unequal(batches: Batches) -> Except:
    """Sizes that differ, of a loss whose gradient grows with them, make E g_b another one for every batch."""
    sizes = np.where(batches.here & ~np.isnan(batches.examples), batches.examples, 0.0)
    differ = batches.some((sizes > 0) & (sizes != sizes.max(axis=0, initial=0.0)))
    return differ & batches.some(batches.averaged != 1), UNEQUAL


def _rounded(batches: Batches) -> Except:
    """Batches that are alike: then the difference of two squares that are nearly equal is their rounding."""
    sums = batches.whole
    with np.errstate(all="ignore"):
        return (sums.squares > 0) & (share_of_noise(sums) <= ROUNDING * sums.squares / sums.m), ROUNDED


def _without_size(batches: Batches) -> Except:
    return batches.some(np.isnan(batches.examples)), NO_SIZE


def _undetermined(batches: Batches) -> list[Except]:
    """Where nothing can be divided by G2."""
    value, error = batches.value(true_sq), batches.error(true_sq)
    with np.errstate(all="ignore"):
        left = batches.here & ~(true_sq(batches.left_out) > 0)
    return [
        (batches.count == 2, NO_ERROR),
        (~(value.values > error.values), UNDETERMINED),
        (left.any(axis=0), ON_ONE),
    ]


@quantity(
    STEPS,
    formula="G2 = (|sum of g_b|^2 - sum of |g_b|^2) / (m (m - 1)) over the m batches of the row: |grad f|^2 without "
    "the noise's own square; undetermined where not above its error, and may be negative there",
    unit=GRADIENT_SQ,
    source="McCandlish et al., arXiv 1812.06162",
    family="noise",
    of_tensor=True,
    of_batches=True,
    when="batches",
    chart=(32, "|∇f|² without bias"),
)
def grad_true_sq(batches: Batches) -> dict[str, Column]:
    """G2, the mean over pairs of <g_a, g_b>: any sign, in loss^2 / length^2, E G2 = |grad f|^2.

    Undefined for one batch, and for batches of unequal size of a loss that is no mean over them. A value at or below
    its error says that |grad f|^2 is undetermined; it is given, so that means over rows are without bias too. Source:
    McCandlish et al.
    """
    return batches.with_error(true_sq, _unequal(batches))


@quantity(
    STEPS,
    formula="B (mean of |g_b|^2 - G2): trace of the covariance of one example's gradient; B the batches' examples, "
    "their harmonic mean where sizes differ; where the loss is a mean over them",
    unit=GRADIENT_SQ,
    range=">= 0",
    source="McCandlish et al., arXiv 1812.06162",
    family="noise",
    of_tensor=True,
    of_batches=True,
    when="batches",
    chart=(33, "trace of the gradient noise"),
)
def noise_trace(batches: Batches) -> dict[str, Column]:
    """tr Sigma = B (S2/m - G2), >= 0, in loss^2 / length^2.

    E |g_b|^2 = |grad f|^2 + tr Sigma / B_b for means over B_b independent examples, so B is the harmonic mean.
    Undefined where sizes are not known, or the loss is not known to be such a mean, and where the gradients differ by
    rounding alone. Source: McCandlish et al.
    """
    mean = batches.some(np.isnan(batches.averaged)), NO_MEAN
    added = batches.some(batches.averaged == 0), A_SUM
    return batches.with_error(trace, _unequal(batches), _without_size(batches), mean, added, _rounded(batches))


@quantity(
    STEPS,
    formula="noise_trace / grad_true_sq, in examples: the simple noise scale, a proxy of the critical batch size under "
    "strong assumptions alone (arXiv 2505.23971); where G2 is above its error",
    unit=NONE,
    range=">= 0",
    source="McCandlish et al., arXiv 1812.06162",
    family="noise",
    of_tensor=True,
    of_batches=True,
    when="batches",
    chart=(34, "noise scale, in examples"),
)
def noise_scale(batches: Batches) -> dict[str, Column]:
    """tr Sigma / G2 = B (S2/m - G2) / G2, >= 0, a number of examples; the same of a loss that is a sum over them.

    Undefined where G2 is undetermined, sizes are not known, or the loss is neither a mean nor a sum. Source: McCandlish
    et al.
    """
    neither = batches.some(np.isnan(batches.averaged)), NO_MEAN
    undefined = _unequal(batches), _without_size(batches), neither, *_undetermined(batches), _rounded(batches)
    return batches.with_error(lambda sums: trace(sums) / true_sq(sums), *undefined)


@quantity(
    STEPS,
    formula="G2 / (mean of |g_b|^2): share of a batch's |g|^2 that all batches have in common",
    unit=NONE,
    range="[-1 / (m - 1), 1]",
    family="noise",
    of_tensor=True,
    of_batches=True,
    when="batches",
    chart=(35, "coherence of the batches' gradients"),
)
def coherence(batches: Batches) -> dict[str, Column]:
    """G2 / (S2/m), at most 1, and below 0 by chance alone; undefined where all gradients are 0."""
    zero = batches.whole.squares == 0, NO_GRADIENTS
    return batches.with_error(lambda sums: true_sq(sums) * sums.m / sums.squares, _unequal(batches), zero)


@quantity(
    STEPS,
    formula="mean over pairs of batches of cos(g_a, g_b)",
    unit=NONE,
    range="[-1 / (m - 1), 1]",
    family="noise",
    of_batches=True,
    when="batches",
    chart=(36, "cosine between batches' gradients"),
)
def batch_cos(batches: Batches) -> dict[str, Column]:
    """( |sum_b g_b / |g_b||^2 - m ) / (m (m - 1)), in [-1/(m - 1), 1]; undefined where some g_b is 0."""
    zero = batches.some(batches.grad_sq == 0), A_ZERO
    return batches.with_error(lambda sums: (sums.units_sq - sums.m) / (sums.m * (sums.m - 1)), zero)


@quantity(
    STEPS,
    formula="(mean of |g_b|^2) / G2: strong growth; where G2 is above its error",
    unit=NONE,
    range=">= 1",
    source="Vaswani et al., arXiv 1810.07288",
    family="noise",
    of_tensor=True,
    of_batches=True,
    when="batches",
    chart=(37, "strong growth, E|g|² / |∇f|²"),
)
def growth(batches: Batches) -> dict[str, Column]:
    """E |g|^2 / |grad f|^2 = (S2/m) / G2, >= 1 but for rounding: the constant of strong growth on batches of this size.

    Undefined where G2 is undetermined: the rows that have a value are those with much signal. Source: Vaswani et al.
    """
    undefined = _unequal(batches), *_undetermined(batches)
    return batches.with_error(lambda sums: sums.squares / (sums.m * true_sq(sums)), *undefined)


@quantity(
    STEPS,
    formula="mean of |g_b|^2 over the batches of the row: E |g|^2",
    unit=GRADIENT_SQ,
    range=">= 0",
    family="noise",
    of_batches=True,
    when="batches",
)
def batch_grad_sq(batches: Batches) -> dict[str, Column]:
    """S2/m, >= 0, in loss^2 / length^2: E |g|^2 of a batch, which contains the noise's own square."""
    return batches.with_error(lambda sums: sums.squares / sums.m, _unequal(batches))

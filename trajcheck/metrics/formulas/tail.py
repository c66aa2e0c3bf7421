"""Tails of the noise between batches, tensor by tensor (metrics/tails.py)."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, constant
from trajcheck.metrics.quantity import NONE, STEPS, quantity
from trajcheck.metrics.tails import FEWEST, Tails

NOT_LARGER = "sums of several batches are no larger than single ones: no stable law has such an index"
TOO_FEW = f"an index of tails takes {FEWEST} batches"
STANDING = "no coordinate varies from batch to batch"
UNEQUAL = "batches of unequal size have noise of unequal scale, which looks like heavy tails"

WHEN = ("batches", "tail_index")

#: Where nothing is said of tails, and why; '' where something is.
Untold = np.ndarray


@quantity(
    STEPS,
    formula="log K / D over coordinates that were standardised over the m batches, K = floor(sqrt(m)), D the mean of "
    "log |sum of K batches| - log |one batch|: index of a stable law; to be held against tail_index_null alone",
    unit=NONE,
    range="> 0",
    source="Mohammadi et al., Metrika 78",
    family="noise",
    only_of_tensor=True,
    of_batches=True,
    when=WHEN,
)
def tail_index(tails: Tails | None, no_tails: Untold) -> Column:
    """alpha = log K / D, > 0; Gaussian noise gives tail_index_null, heavier tails less.

    Undefined where batches are fewer than 8 or of unequal size, where no coordinate varies, or sums of batches are no
    larger than single ones. Source: Mohammadi et al., as Simsekli et al., arXiv 1901.06053, use it.
    """
    blank = constant(0.0, len(no_tails)).except_where(no_tails != "", no_tails)
    if tails is None:
        return blank
    with np.errstate(all="ignore"):
        found = tails.index
    return Column(np.where(blank.defined, found, np.nan), blank.reasons).except_where(np.isnan(found), NOT_LARGER)


@quantity(
    STEPS,
    formula="tail_index of Gaussians, by simulation: the same whatever their scales and covariance; its _se is how far "
    "as many coordinates as these count for may lie from it",
    unit=NONE,
    range="> 0",
    family="noise",
    only_of_tensor=True,
    of_batches=True,
    when=WHEN,
)
def tail_index_null(tails: Tails | None, no_tails: Untold) -> dict[str, Column]:
    """What the estimator gives on Gaussians, > 0, and the error of tail_index around it; undefined as tail_index is."""
    blank = constant(0.0, len(no_tails)).except_where(no_tails != "", no_tails)
    if tails is None:
        return {"": blank, "_se": blank}
    with np.errstate(all="ignore"):
        index, error = tails.of_gaussians
    return {
        "": Column(np.where(blank.defined, index, np.nan), blank.reasons),
        "_se": Column(np.where(blank.defined, error, np.nan), blank.reasons),
    }

"""On which share of a run the inequality of convexity holds, fails, or is not decided."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.uncertainty import weighted_mean
from trajcheck.metrics.weights import Weights


class Shares(NamedTuple):
    """`of`: weighted shares of rows, which sum to 1. `errors`: their standard errors along the path, None with too few
    rows for one."""

    of: dict[str, float]
    errors: dict[str, float | None]


def shares(gap: Column, resolution: Column, weights: Weights) -> Shares | None:
    """Of the rows on which the gap is certainly negative (convex), positive (not), or neither; None if there are none.
    `resolution` is gap_resolution, or the gap's standard error where that is larger.

    `convex` means that the inequality of convexity holds between x_t and y on this sample, no more. A share is a mean
    over the rows, and its error that of such a mean, by batch means.
    """
    here = gap.defined & resolution.defined
    weight = np.where(here, weights.of(here), 0.0)
    if not weight.sum() > 0:
        return None
    value, limit = gap.values, resolution.values
    with np.errstate(invalid="ignore"):
        kinds = {"convex": value < -limit, "not_convex": value > limit, "undetermined": np.abs(value) <= limit}
    found = {
        name: weighted_mean(Column(np.where(here, rows.astype(float), np.nan), np.where(here, "", "none")), weight)
        for name, rows in kinds.items()
    }
    return Shares(
        {name: each[0] for name, each in found.items() if each}, {name: each[1] for name, each in found.items() if each}
    )

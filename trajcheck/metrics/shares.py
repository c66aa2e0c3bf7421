"""On which share of a run the inequality of convexity holds, fails, or is not decided."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.student import ERRORS
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
    over the rows; `share_error` makes its error of that of such a mean, by batch means.
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
    rows = float(weight.sum() ** 2 / (weight**2).sum())
    return Shares(
        {name: each[0] for name, each in found.items() if each},
        {name: share_error(*each, rows) for name, each in found.items() if each},
    )


def share_error(share: float, error: float | None, rows: float) -> float | None:
    """That of a share, > 0: the `error` of a mean along the path, but no less than half of what Wilson's interval of so
    many independent `rows` reaches on its longer side. So 0% and 100%, where nothing varied along the path, have one
    too, and two errors cover the interval.

    `rows` is the effective number, (sum w)^2 / sum w^2. With k = 2 Wilson's interval is
    (p + k^2/2n -+ k sqrt(p (1 - p)/n + k^2/4n^2)) / (1 + k^2/n); of 0 of n it reaches to 4 / (n + 4). None without an
    error. Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22, 1927.
    """
    if error is None:
        return None
    square = ERRORS**2
    off = square * abs(0.5 - share) / (rows + square)
    half = ERRORS * (share * (1 - share) / rows + square / (4 * rows**2)) ** 0.5 / (1 + square / rows)
    return max(error, (off + half) / ERRORS)

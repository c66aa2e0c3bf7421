"""How the sign of a convexity gap is judged, and how many rows a wider precision would judge otherwise."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.weights import Weights

#: Share of rows from which it matters.
POINTS = 0.01


def signs(gap: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """-1 where the gap is certainly negative (convex), 1 where positive, 0 where it is undetermined."""
    return np.where(np.abs(gap) <= limit, 0, np.sign(gap))


def judged_otherwise(
    gap: Column, resolution: Column, second_gap: Column, wider: float, error: Column | None, weights: Weights
) -> float | None:
    """About which share of rows, by weight, would be judged otherwise in the second precision; None without a gap.

    `second_gap` is known on some rows, `wider` the ratio of the second epsilon to the replay's, `error` the gap's
    standard error over batches, which rounding adds nothing to. On the other rows it is the share of those that were
    looked at and judged the same; with none of them, what is undetermined for rounding is told there and the rest
    stays.
    """
    here = gap.defined & resolution.defined
    weight = np.where(here, weights.of(here), 0.0)
    if not weight.sum() > 0:
        return None
    noise = np.zeros(len(gap)) if error is None else np.nan_to_num(error.values)
    judged = signs(gap.values, np.fmax(resolution.values, noise))
    again = signs(second_gap.values, np.fmax(wider * resolution.values, noise))
    twice, changed = here & second_gap.defined, np.zeros(len(gap))
    changed[twice] = (judged != again)[twice]
    for undetermined in (True, False):
        same = here & ((judged == 0) == undetermined)
        seen, unseen = same & twice, same & ~twice
        share = float(undetermined)
        if weight[seen].sum() > 0:
            share = float(np.average(changed[seen], weights=weight[seen]))
        changed[unseen] = np.where(np.abs(gap.values[unseen]) <= noise[unseen], 0.0, share)
    return float((weight * changed).sum() / weight.sum())

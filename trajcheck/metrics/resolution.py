"""How small a difference of two large numbers may be before rounding makes it: measured on rows that were evaluated in
a second precision.

Rounding is not relative to the loss: one of 0.005 that is made of logits of 10 is rounded hundreds of times more than
eps |f|. So some rows are evaluated in the next wider precision too, on the same samples with the same randomness. With

    e = |difference - difference in the wider precision|,    r = e / (eps scale),

`scale` the sum of the absolute terms of the difference, the resolution of a row is the largest of

    2 r95 eps scale,    2 e95,    e itself on a row that was evaluated twice,    4 eps (|f(x)| + |f(y)|),

r95 and e95 the 95% quantiles over the 16 such rows that are nearest in log |f(x)|: rounding grows as losses fall, and
near 0 it is no longer relative to them at all, which the smallest losses alone would show too late.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column

#: Rows that are evaluated twice, at most; of how many of them a row's quantile is taken; which; how many times it.
ROWS, NEAREST, QUANTILE, MARGIN = 64, 16, 0.95, 2.0

#: c in the bound c eps (|f(x)| + |f(y)|): below it no difference is resolved, whatever was measured.
BOUND = 4.0


def resolution(
    difference: Column, second: Column, scale: Column, bound: Column, loss: Column, epsilon: float
) -> Column:
    """The resolution of a difference, >= 0, in its units; undefined where `scale` or `bound` is.

    `second` is the same difference in the second precision, defined on the rows that were evaluated in it; where there
    is none, as of replays in float64, the bound alone is left. `bound` is |f(x)| + |f(y)| or what stands for it, and
    `epsilon` that of the replay, 0 without one.
    """
    error = np.where(difference.defined & second.defined, np.abs(difference.values - second.values), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(scale.values > 0, error / (epsilon * scale.values), np.nan)
    found = np.fmax(BOUND * epsilon * bound.values, error)
    found = np.fmax(found, MARGIN * epsilon * nearest_quantile(relative, loss) * scale.values)
    found = np.fmax(found, MARGIN * nearest_quantile(error, loss))
    return Column(found, bound.reasons).along(scale)


def nearest_quantile(found: np.ndarray, loss: Column) -> np.ndarray:
    """The quantile [rows] of `found` [rows] on the 16 rows that have it and are nearest in log |loss|; NaN without any.

    In order of their losses the nearest ones are neighbours, so that there are few sets of 16 to choose from.
    """
    logs = np.log(np.fmax(np.abs(loss.values), np.finfo(np.float64).tiny))
    known = np.flatnonzero(np.isfinite(found) & np.isfinite(logs))
    if not len(known):
        return np.full(len(found), np.nan)
    known = known[np.argsort(logs[known], kind="stable")]
    count = min(NEAREST, len(known))
    sets = np.lib.stride_tricks.sliding_window_view(found[known], count)
    quantiles = np.quantile(sets, QUANTILE, axis=1)
    at = logs[known]
    farthest = np.fmax(np.abs(logs[:, None] - at[: len(sets)]), np.abs(logs[:, None] - at[count - 1 :]))
    return np.asarray(quantiles[np.argmin(np.where(np.isnan(farthest), 0.0, farthest), axis=1)])

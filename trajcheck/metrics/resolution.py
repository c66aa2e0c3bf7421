"""How small a difference of two large numbers may be before rounding makes it: measured on rows that were evaluated in
a second precision.

Rounding is not relative to the loss: one of 0.005 that is made of logits of 10 is rounded hundreds of times more than
eps |f|. So some rows are evaluated in the next wider precision too, on the same samples with the same randomness. With

    e = |difference - difference in the wider precision|,    r = e / (eps scale),

`scale` the sum of the absolute terms of the difference, the resolution of a row is the largest of

    3 r16 eps scale,    3 e16,    e itself on a row that was evaluated twice,    4 eps (|f(x)| + |f(y)|),

r16 and e16 the largest of the 16 such rows that are nearest in log |f(x)|: rounding grows as losses fall, and near 0 it
is no longer relative to them at all, which the smallest losses alone would show too late. Rounding has a heavy tail:
with twice the 95% quantiles 1.6% of the resolved signs of six MLPs at losses of 1e-6 were wrong, with this 0.2%.

Of replays in float64 the other precision is float32, in which the same operations round 2^29 times more. The resolution
is the largest of

    3 max a eps64 / eps32,    4 eps64 (|f(x)| + |f(y)|),    a = sum over the terms of |term - term in float32|,

the maximum over all rows that were evaluated twice, and no rows of about the same loss: where float32 gives losses that
are next to 0 it rounds them to 0, and no longer tells what they are made of. Not e of the difference: between points so
near that float32 hardly tells them apart it rounds both losses alike, so that e is next to nothing, and float64 does
not. Against long double, on 57 windows of trainings (MLPs and logistic regression; cross entropy, binary and squared
errors; losses from 2 down to 0), with e more than 1% of the errors were above the resolution on 29, and on 15 resolved
signs were wrong, up to nearly all of them. With a that is so on two, where float32 rounds all losses to nearly 0, which
a warning says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajcheck.metrics.columns import Column

#: Rows that are evaluated twice, at most; of how many of them a row's largest is taken; how many times that. Of replays
#: in float64, of which all count for all, no more are evaluated than count elsewhere.
ROWS, NEAREST, MARGIN = 64, 16, 3.0

#: c in the bound c eps (|f(x)| + |f(y)|): below it no difference is resolved, whatever was measured.
BOUND = 4.0


class Rounding(NamedTuple):
    """`epsilon` of the replay, 0 without one, and `seen`, that of the coarser of its two precisions."""

    epsilon: float
    seen: float


def resolution(
    difference: Column, second: Column, apart: Column, scale: Column, bound: Column, loss: Column, rounding: Rounding
) -> Column:
    """The resolution of a difference, >= 0, in its units; undefined where `scale` or `bound` is.

    `second` is the same difference in the second precision, defined on the rows that were evaluated in it, and `apart`
    the sum over its terms of what each is apart there (`terms_apart`); where there is none, the bound alone is left.
    `bound` is |f(x)| + |f(y)| or what stands for it.
    """
    epsilon, seen = rounding
    if seen > epsilon:
        largest = np.fmax.reduce(np.where(apart.defined, apart.values, np.nan) * (epsilon / seen), initial=0.0)
        return Column(np.fmax(BOUND * epsilon * bound.values, MARGIN * largest), bound.reasons).along(scale)
    error = np.where(difference.defined & second.defined, np.abs(difference.values - second.values), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(scale.values > 0, error / (epsilon * scale.values), np.nan)
    found = np.fmax(BOUND * epsilon * bound.values, error)
    found = np.fmax(found, MARGIN * epsilon * nearest_largest(relative, loss) * scale.values)
    found = np.fmax(found, MARGIN * nearest_largest(error, loss))
    return Column(found, bound.reasons).along(scale)


def terms_apart(*terms: tuple[Column, Column]) -> Column:
    """sum over the terms of a difference of |term - term in the second precision|, on the rows that have all."""
    found = [abs(first - second) for first, second in terms]
    return sum(found[1:], found[0])


def nearest_largest(found: np.ndarray, loss: Column) -> np.ndarray:
    """The largest [rows] of `found` [rows] on the 16 rows that have it and are nearest in log |loss|; NaN without any.

    In order of their losses the nearest ones are neighbours, so that there are few sets of 16 to choose from.
    """
    logs = np.log(np.fmax(np.abs(loss.values), np.finfo(np.float64).tiny))
    known = np.flatnonzero(np.isfinite(found) & np.isfinite(logs))
    if not len(known):
        return np.full(len(found), np.nan)
    known = known[np.argsort(logs[known], kind="stable")]
    count = min(NEAREST, len(known))
    sets = np.lib.stride_tricks.sliding_window_view(found[known], count)
    largest = sets.max(axis=1)
    at = logs[known]
    farthest = np.fmax(np.abs(logs[:, None] - at[: len(sets)]), np.abs(logs[:, None] - at[count - 1 :]))
    return np.asarray(largest[np.argmin(np.where(np.isnan(farthest), 0.0, farthest), axis=1)])

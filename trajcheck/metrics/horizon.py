"""Which of several averages is best: chosen on one half of the probe batches, reported on the other.

The largest of several noisy heights is large by chance too, on the batches that it was chosen by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.weights import Weights

#: Why nothing was chosen.
ONE_AVERAGE = "one average: nothing to choose from"
ONE_BATCH = "one sample: there is no other to report on what was chosen by it"
NOWHERE = "on no row have all averages a value"


def chosen(heights: Mapping[str, Sequence[Column]], weights: Weights, *, at_end: bool) -> dict[str, object] | str:
    """The average whose height above the valley is largest over batches 0, 2, 4, ..., and its height over batches
    1, 3, 5, ..., with its standard error over these (None for one); or why there is none.

    `heights` are those of each average on each batch. `at_end`: on the last row that all have; else the weighted mean
    over the rows that all have.
    """
    batches = len(next(iter(heights.values()), ()))
    if len(heights) < 2:
        return ONE_AVERAGE
    if batches < 2:
        return ONE_BATCH
    here = np.all([each.defined for columns in heights.values() for each in columns], axis=0)
    weight = np.where(here, weights.of(here), 0.0)
    if at_end:
        weight = np.where(np.arange(len(here)) == np.flatnonzero(here)[-1:], 1.0, 0.0) if here.any() else weight
    if not weight.sum() > 0:
        return NOWHERE
    means = {
        name: np.array([np.average(each.values[here], weights=weight[here]) for each in columns])
        for name, columns in heights.items()
    }
    best = max(means, key=lambda name: float(means[name][0::2].mean()))
    other = means[best][1::2]
    error = float(np.std(other, ddof=1) / len(other) ** 0.5) if len(other) > 1 else None
    return {"average": best, "valley_height": float(other.mean()), "valley_height_se": error, "batches": len(other)}

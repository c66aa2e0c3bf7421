"""How many examples a batch has, and whether the loss is their mean or their sum: what the noise of a batch says of
the noise of one example.

Neither can be read off the batch. A loss that returns (value, count), and an objective with weight(batch), say it; else
a batch has the length that all its tensors have along their first axis, and the loss is asked, at one point, on two
batches and on both put together along that axis.
"""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.errors import ObjectiveError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.data_set.weights import APART, LossOfBatches, length_of, number_of, said, together

#: `examples`, and `averaged`: 1.0 for a mean, 0.0 for a sum; None where that is not known.
Numbers = dict[str, float | None]

#: Losses that it takes to ask, where the loss does not count itself.
ASKED = 3

COUNTED = "the loss returned with batch {} the count"


def examples_of(objective: Objective, samples: Sequence[Sample], of: str) -> list[Numbers]:
    """Those of some batches, `of` which they are in words. Raises ObjectiveError for a weight or a count that is no
    number above 0."""
    if objective.weight is not None:
        return [{"examples": said(objective, each, i, of), "averaged": 1.0} for i, each in enumerate(samples)]
    sizes = [length_of(tuple(tensor.shape) for tensor in each.tensors.values()) for each in samples]
    unknown: list[Numbers] = [{"examples": size and float(size), "averaged": None} for size in sizes]
    if len(samples) < 2:
        return unknown
    at = LossOfBatches(objective)
    try:
        first = at.loss(samples[0])
        if objective.count is not None:
            return [_counted(objective, at, each, i) for i, each in enumerate(samples)]
        averaged = _averaged(at, first, samples, sizes)
    except ObjectiveError:  # a loss of just this number of examples; what the replay asks for fails by itself
        return unknown
    return [{**each, "averaged": averaged} for each in unknown]


def _counted(objective: Objective, at: LossOfBatches, sample: Sample, number: int) -> Numbers:
    at.loss(sample)
    return {"examples": number_of(objective, objective.count, COUNTED.format(number)), "averaged": 1.0}


def _averaged(at: LossOfBatches, first: float, samples: Sequence[Sample], sizes: Sequence[int | None]) -> float | None:
    """Whether the loss on the first two batches together is the mean, by length, or the sum of that on each."""
    (one, other), (n, m) = samples[:2], sizes[:2]
    if not n or not m:
        return None
    second, both = at.loss(other), at.loss(together(one, other))
    scale = max(abs(first), abs(second), abs(both))
    near = at.near * scale
    if abs(both - (n * first + m * second) / (n + m)) <= near and abs(first - second) > APART * near:
        return 1.0
    return 0.0 if abs(both - (first + second)) <= near and scale > 0 else None

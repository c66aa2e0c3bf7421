"""How many examples a batch has, and whether the loss is their mean or their sum: what the noise of a batch says of
the noise of one example.

Neither can be read off the batch. A loss that returns (value, count), and an objective with weight(batch), say it; else
a batch has the length that all its tensors have along their first axis, and the loss is asked, at one point, on two
batches and on both put together along that axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trajcheck.errors import ObjectiveError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.data_set.weights import APART, LossOfBatches, length_of, number_of, said, together
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.batch_restoring import unflatten

#: `examples`, and `averaged`: 1.0 for a mean, 0.0 for a sum; None where that is not known.
Numbers = dict[str, float | None]

#: Losses that it takes to ask, where the loss does not count itself.
ASKED = 3


class Examples:
    """What is known of an objective's batches, from two of them. Raises ObjectiveError for a weight or a count that is
    no number above 0."""

    def __init__(self, objective: Objective, batches: Sequence[Sample]) -> None:
        self._objective, self._counts, self._averaged = objective, False, None if objective.weight is None else 1.0
        if self._averaged is None and len(batches) > 1:
            at = LossOfBatches(objective)
            try:
                first = at.loss(batches[0])
                self._counts = objective.count is not None
                self._averaged = 1.0 if self._counts else _averaged(at, first, *batches[:2])
            except ObjectiveError:  # a loss of just this number of examples; what the replay asks for fails by itself
                pass

    def of(self, batch: Sample, number: int, of: str, count: Any = None) -> Numbers:
        """Of the `number`-th batch, `of` the probe or a step in words; `count` is what the loss on it returned as
        such."""
        if self._objective.weight is not None:
            return {"examples": said(self._objective, batch, number, of), "averaged": 1.0}
        if self._counts:
            words = f"the loss returned with batch {number} {of} the count"
            return {"examples": number_of(self._objective, count, words), "averaged": 1.0}
        length = length_of(tuple(tensor.shape) for tensor in batch.tensors.values())
        return {"examples": length and float(length), "averaged": self._averaged}

    def of_probe(self, batches: Sequence[Sample]) -> list[Numbers]:
        """Of each probe batch."""
        at = LossOfBatches(self._objective) if self._counts else None

        def count(batch: Sample) -> Any:
            return None if at is None or at.loss(batch) is None else self._objective.count

        return [self.of(batch, number, "of the probe", count(batch)) for number, batch in enumerate(batches)]


def micro_batches(sample: Sample) -> list[Sample]:
    """The micro-batches of a step, each as a sample of its own, without randomness; no tensor is copied."""
    whole = unflatten(dict(sample.tensors), sample.tree)
    alone = replace(sample, weights=(1.0,), generators={}, forwards=(), rank_buffers={}, modes=None)
    return [replace(alone, tensors=tensors, tree=tree) for tensors, tree in map(flatten, whole)]


def _averaged(at: LossOfBatches, first: float, one: Sample, other: Sample) -> float | None:
    """Whether the loss on two batches together is the mean, by length, or the sum of that on each."""
    n, m = (length_of(tuple(tensor.shape) for tensor in each.tensors.values()) for each in (one, other))
    if not n or not m:
        return None
    second, both = at.loss(other), at.loss(together(one, other))
    scale = max(abs(first), abs(second), abs(both))
    near = at.near * scale
    if abs(both - (n * first + m * second) / (n + m)) <= near and abs(first - second) > APART * near:
        return 1.0
    return 0.0 if abs(both - (first + second)) <= near and scale > 0 else None

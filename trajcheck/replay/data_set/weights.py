"""How much each batch of a data set weighs in the mean over it.

f = sum_i w_i loss(model, batch_i) / sum_i w_i is the mean over the data set where w_i counts what the loss of batch i
is the mean of: examples, tokens that are not padding, nodes of a graph. That cannot be read off the batch, so it is
said by the objective, or the loss is asked: batches weigh by their lengths along the first axis where the loss on two
of them, put together along it, is the mean of the losses on each by these lengths. Else all weigh the same, and the
report says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.files.torch_tensors import FLOATING
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.runs.batch_restoring import unflatten

BY_WEIGHT = "as weight(batch) says"
BY_COUNT = "by the counts that the loss returned"
BY_LENGTH = "by their lengths: on two put together the loss is the mean of those on each, by length"
SAME_SHAPES = "equally: all have the same shapes"
EQUALLY = (
    "equally, although their shapes differ: the loss is not known to be a mean over their first axis. Let NAME() "
    "return (model, loss, batches, weight) with weight(batch), or loss return (value, count)"
)

#: Two losses are the same to so many epsilons, relatively; those of the batches that are put together must differ by so
#: many times that, or the comparison tells nothing.
SAME, APART = 64.0, 100.0

Walk = Callable[[], Iterable[Sample]]


class Weighing(NamedTuple):
    """The shares of the batches, which add up to 1, and in words how they were found."""

    shares: tuple[float, ...]
    words: str


def weigh(objective: Objective, walk: Walk) -> Weighing:
    """The weights of the batches that `walk` goes through. Raises ObjectiveError for a weight that is no number > 0."""
    if objective.weight is not None:
        return _shares([said(objective, sample, i) for i, sample in enumerate(walk())], BY_WEIGHT)
    at = LossOfBatches(objective)
    counts: list[float] = []
    for number, sample in enumerate(walk()):
        at.loss(sample)
        if objective.count is None:
            break
        counts.append(number_of(objective, objective.count, f"the loss returned with batch {number} the count"))
    else:
        return _shares(counts, BY_COUNT)
    if counts:
        raise ObjectiveError(f"objective {objective.title}: the loss returned (value, count) on some batches alone")
    shapes = [{path: tuple(tensor.shape) for path, tensor in sample.tensors.items()} for sample in walk()]
    if all(each == shapes[0] for each in shapes):
        return _shares([1.0] * len(shapes), SAME_SHAPES)
    lengths = [length_of(each.values()) for each in shapes]
    beyond = [{path: shape[1:] for path, shape in each.items()} for each in shapes]
    known = [length for length in lengths if length]
    comparable = len(known) == len(lengths) and all(each == beyond[0] for each in beyond)
    if comparable and at.means_over_the_first_axis(walk(), known):
        return _shares([float(length) for length in known], BY_LENGTH)
    return _shares([1.0] * len(shapes), EQUALLY)


class LossOfBatches:
    """The loss, batch by batch, at one point: the objective's own parameters with some noise, so that no symmetry of an
    initial value (a head of zeros) makes all losses equal. Modules are in evaluation mode: a normalisation over the
    batch, and dropout, would hide what the loss averages over."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        generator = torch.Generator().manual_seed(0)
        self._x: dict[str, Tensor] = {}
        for name in objective.names:
            value = objective.value_of(name)
            if value.dtype in FLOATING and value.numel():
                noise = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
                spread = float(value.float().std(correction=0))
                value = value + (0.1 * spread + 0.01) * noise
            self._x[name] = value

    @property
    def near(self) -> float:
        """By how much two losses that are the same may differ, relatively."""
        dtypes = [value.dtype for value in self._x.values() if value.dtype in FLOATING]
        return SAME * max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)

    def loss(self, sample: Sample) -> float:
        with self._objective.in_evaluation_mode():
            return float(self._objective.loss(self._x, sample, where="a batch of the data set"))

    def means_over_the_first_axis(self, samples: Iterable[Sample], lengths: Sequence[int]) -> bool:
        """Whether no two neighbours contradict it, and at least one pair could have."""
        told = 0
        try:
            for (one, n), (other, m) in pairwise(zip(samples, lengths, strict=True)):
                f, g, both = self.loss(one), self.loss(other), self.loss(together(one, other))
                scale = max(abs(f), abs(g), abs(both))
                if not abs(both - (n * f + m * g) / (n + m)) <= self.near * scale:
                    return False
                told += abs(f - g) > APART * self.near * scale
        except ObjectiveError:  # a loss of just this number of examples
            return False
        return told > 0


def together(one: Sample, other: Sample) -> Sample:
    """Two batches along the first axis; what has no axis is the first's."""
    tensors = {path: torch.cat([t, other.tensors[path]]) if t.ndim else t for path, t in one.tensors.items()}
    return replace(one, tensors=tensors)


def length_of(shapes: Iterable[tuple[int, ...]]) -> int | None:
    """That of all tensors along the first axis; None where they have none in common."""
    found = {shape[0] for shape in shapes if shape}
    return found.pop() if len(found) == 1 else None


def said(objective: Objective, sample: Sample, number: int, of: str = "of the data set") -> float:
    """What the objective's weight(batch) says of a batch. Raises ObjectiveError."""
    assert objective.weight is not None
    with objective.asked(f"weight() of batch {number} {of}"):
        found = objective.weight(unflatten({path: t.clone() for path, t in sample.tensors.items()}, sample.tree))
    return number_of(objective, found, f"weight() of batch {number} {of} is")


def number_of(objective: Objective, found: object, what: str) -> float:
    """A number above 0. Raises ObjectiveError, which begins with `what`."""
    try:
        value = float(found)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ObjectiveError(f"objective {objective.title}: {what} {found!r:.60}; expected a number above 0")
    return value


def _shares(weights: Sequence[float], words: str) -> Weighing:
    total = math.fsum(weights)
    return Weighing(tuple(weight / total for weight in weights), words)

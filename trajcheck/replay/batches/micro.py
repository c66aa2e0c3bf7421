"""The micro-batches of a step that was accumulated, as batches of their own.

The step's loss is f = sum_i w_i f_i, so that with W = sum_i w_i the batch i by itself is f with W f_i in place of the
sum: g_i = W grad f_i, of which grad f is the mean weighted by w_i. Their gradients come by as the step's own is added
up, in the same evaluation, with the same randomness and buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trajcheck.objective.objective import Each, Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.batches.examples import Examples, Numbers, micro_batches
from trajcheck.replay.batches.sums import BatchSums
from trajcheck.replay.reducer import Reducer, Shares, Vector


class MicroBatches:
    """Sees the gradients of w_i f_i as they are found; with `hold` it keeps them, and else they are evaluated again."""

    def __init__(self, objective: Objective, sample: Sample, examples: Examples, hold: bool) -> None:
        self._objective, self._sample, self._examples, self._hold = objective, sample, examples, hold
        total = sum(sample.weights)
        self._divisors = [weight / total for weight in sample.weights]
        self._sums = BatchSums()
        self._held: list[Vector] = []
        self._counts: list[Any] = []

    def add(self, number: int, gradient: Vector) -> None:
        """The next of them; at number 0 an evaluation begins, perhaps anew."""
        if number == 0:
            self._sums, self._held, self._counts = BatchSums(), [], []
        self._sums.add(gradient, self._divisors[number])
        self._counts.append(self._objective.count)
        if self._hold:
            self._held.append(gradient)

    def products(self, reducer: Reducer, again: Callable[[Each], object]) -> list[tuple[Shares, Numbers]]:
        """What each has with the sums over all. `again` evaluates the step's loss once more."""
        found: list[Shares] = []

        def meet(number: int, gradient: Vector) -> None:
            if number == 0:
                found.clear()
            found.append(self._sums.products(reducer, gradient, self._divisors[number], ("grad_sq",)))

        if self._hold:
            for number, gradient in enumerate(self._held):
                meet(number, gradient)
            self._held.clear()
        else:
            again(meet)
        batches: Sequence[Sample] = micro_batches(self._sample)
        numbers = [
            self._examples.of(batch, number, "of the step", count)
            for number, (batch, count) in enumerate(zip(batches, self._counts, strict=True))
        ]
        return list(zip(found, numbers, strict=True))

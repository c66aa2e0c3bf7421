"""f and grad f at several points on one sample, nothing twice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from trajcheck.objective.objective import Each, Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.around import Around
from trajcheck.replay.reducer import Vector, Widened


@dataclass(frozen=True)
class Points:
    """What is around each point of a row, on one sample: x_t and x_{t-1} by their places, references by number."""

    places: Mapping[int, Around] = field(default_factory=dict)
    references: Mapping[int, Around] = field(default_factory=dict)


class Evaluations:
    """The losses found so far on one sample, by the key of the point, and the gradients that are still wanted.

    Each gradient is as large as the model; `forget` says which are wanted no longer. `count` is the number of
    evaluations made.
    """

    def __init__(self, objective: Objective, sample: Sample) -> None:
        self.objective, self.sample = objective, sample
        self.around = Points()  # of the present row
        self.losses: dict[Hashable, Tensor] = {}
        self.gradients: dict[Hashable, Vector] = {}
        self.count = 0

    def loss(self, key: Hashable, x: Vector, around: Around, where: str) -> Tensor:
        """f(x; z), float64 [], on the device, x with what is around it. Raises ObjectiveError, in which `where` names
        step and point."""
        if key not in self.losses:
            self.count += 1
            point, sample = self.at(x, around)
            self.losses[key] = self.objective.loss(point, sample, where=where)
        return self.losses[key]

    def loss_and_gradient(
        self, key: Hashable, x: Vector, around: Around, where: str, *, keep: bool = True, each: Each | None = None
    ) -> tuple[Tensor, Vector]:
        """f(x; z) and grad f(x; z), kept until it is forgotten or not at all; `each` sees those of micro-batches.
        Raises as `loss` does."""
        if key in self.gradients:
            return self.losses[key], self.gradients[key]
        self.count += 1
        point, sample = self.at(x, around)
        how = {} if each is None else {"each": each}
        loss, gradient = self.objective.loss_and_gradient(point, sample, where=where, **how)
        if keep:
            self.gradients[key] = gradient
        return self.losses.setdefault(key, loss), gradient

    def at(self, x: Vector, around: Around) -> tuple[Vector, Sample]:
        """A point and the sample as the objective takes them: frozen parameters with it, buffers with the sample."""
        values = x.wide if isinstance(x, Widened) else x
        return {**values, **around.frozen}, replace(self.sample, buffers=around.buffers)

    def forget(self, *, losses: set[Hashable], gradients: set[Hashable]) -> None:
        """Keep the losses and the gradients at these points alone."""
        self.losses = {key: loss for key, loss in self.losses.items() if key in losses}
        self.gradients = {key: gradient for key, gradient in self.gradients.items() if key in gradients}

"""f and grad f at several points on one sample, nothing twice."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from trajcheck.objective import Objective
from trajcheck.reduction import Vector
from trajcheck.samples import Sample


class Evaluations:
    """The losses found so far on one sample, by the key of the point, and the gradient at the point `kept`.

    One gradient is kept, not all: each is as large as the model. `count` is the number of evaluations made. `which`
    says in errors which sample it is, where a step has several.
    """

    def __init__(
        self, objective: Objective, sample: Sample, frozen: Vector, step: int, kept: Hashable, which: str = ""
    ) -> None:
        self.objective, self.sample, self.frozen, self.step, self.kept = objective, sample, frozen, step, kept
        self.which = which
        self.losses: dict[Hashable, Tensor] = {}
        self.gradient: Vector | None = None
        self.count = 0

    def loss(self, key: Hashable, x: Vector, where: str) -> Tensor:
        """f(x; z), float64 [], on the device. Raises ObjectiveError that names step and point."""
        if key not in self.losses:
            self.count += 1
            self.losses[key] = self.objective.loss({**x, **self.frozen}, self.sample, where=self.where(where))
        return self.losses[key]

    def loss_and_gradient(self, key: Hashable, x: Vector, where: str) -> tuple[Tensor, Vector]:
        """f(x; z) and grad f(x; z). Raises as `loss` does."""
        if key == self.kept and self.gradient is not None:
            return self.losses[key], self.gradient
        self.count += 1
        loss, gradient = self.objective.loss_and_gradient({**x, **self.frozen}, self.sample, where=self.where(where))
        self.losses.setdefault(key, loss)
        if key == self.kept:
            self.gradient = gradient
        return loss, gradient

    def where(self, point: str) -> str:
        return f"step {self.step}, at {point}{self.which}"

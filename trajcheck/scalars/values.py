"""The typed rows that the heavy pass produces: inner products and losses, one row a step and one a reference.

None means that the row does not have the value; why is known to the rows of the report (rows.py), not here.
Letters as in definitions: d_t = x_t - x_{t-1}, e_t = x_t - x*, g_t = grad f(x_t; z_t), s a later record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np


@dataclass(slots=True)
class StepScalars:
    """What one step t has by itself."""

    step: int
    param_sq: float | None = None  # |x_t|^2
    step_sq: float | None = None  # |d_t|^2
    step_dot_next: float | None = None  # <d_t, d_{t+1}>
    init_sq: float | None = None  # |x_t - x_0|^2
    grad_sq: float | None = None  # |g_t|^2
    grad_dot_param: float | None = None  # <g_t, x_t>
    grad_dot_step: float | None = None  # <g_t, d_t>
    grad_dot_next: float | None = None  # <g_t, d_{t+1}>
    previous_grad_dot_step: float | None = None  # <grad f(x_{t-1}; z_t), d_t>
    grad_change_sq: float | None = None  # |g_t - grad f(x_{t-1}; z_t)|^2
    regularised_sq: float | None = None  # |g_t + lambda x_t|^2
    recorded_sq: float | None = None  # |recorded g_t|^2, where g_t was replayed
    disagreement_sq: float | None = None  # |g_t - recorded g_t|^2
    path_integral: float | None = None  # sum of Gauss-Legendre weights times <grad f(x_{t-1} + s d_t; z_t), d_t>
    loss: float | None = None  # f(x_t; z_t)
    loss_previous: float | None = None  # f(x_{t-1}; z_t)
    lambda_max: float | None = None  # the extreme eigenvalues of the Hessian of f(.; z_t) at x_t
    lambda_max_residual: float | None = None  # |H v - lambda v|, |v| = 1
    lambda_min: float | None = None
    lambda_min_residual: float | None = None
    grad_curvature: float | None = None  # <g_t, H g_t> / |g_t|^2
    products: float | None = None  # Hessian-vector products that were made
    converged: float | None = None  # 1 or 0: whether the eigenvalues are
    replayed: bool = False  # whether loss and g_t were replayed


@dataclass(slots=True)
class ReferenceScalars:
    """What one step t has towards one reference x*."""

    step: int
    ref_sq: float | None = None  # |e_t|^2
    skip_sq: float | None = None  # |x_s - x*|^2
    next_dot_ref: float | None = None  # <d_{t+1}, e_t>
    grad_dot_ref: float | None = None  # <g_t, e_t>
    regularised_dot_ref: float | None = None  # <g_t + lambda x_t, e_t>
    grad_dot_skip: float | None = None  # <g_t, x_s - x*>
    ref_grad_change_sq: float | None = None  # |g_t - grad f(x*; z_t)|^2
    loss_ref: float | None = None  # f(x*; z_t)
    window_dot_ref: float | None = None  # <G, x_k - x*>, G the sum of the gradients of the steps from record k to t
    window_dot_skip: float | None = None  # <G, x_t - x*>


S = TypeVar("S", StepScalars, ReferenceScalars)


@dataclass(slots=True)
class RowScalars:
    """One row of the report: the step, and each reference in the order in which they were given.

    `tensors` holds the shares that single tensors have in the inner products, on rows where these were asked for.
    """

    own: StepScalars
    references: list[ReferenceScalars] = field(default_factory=list)
    tensors: Mapping[str, RowScalars] = field(default_factory=dict)

    @property
    def all(self) -> list[StepScalars | ReferenceScalars]:
        """The step's, then those of each reference."""
        return [self.own, *self.references]

    def update(self, other: RowScalars) -> None:
        """Take over what another pass over the same row found."""
        for mine, theirs in zip(self.all, other.all, strict=True):
            _take(mine, theirs)
        if other.tensors:
            tensors = dict(self.tensors)
            for name, row in other.tensors.items():
                if name in tensors:
                    tensors[name].update(row)
                else:
                    tensors[name] = row
            self.tensors = tensors

    def keep(self, step_fields: Collection[str], reference_fields: Collection[str]) -> RowScalars:
        """A copy with these values alone."""
        return RowScalars(
            _copy(self.own, step_fields),
            [_copy(each, reference_fields) for each in self.references],
            {name: row.keep(step_fields, reference_fields) for name, row in self.tensors.items()},
        )


@dataclass(slots=True)
class PairScalars:
    """Inner products of one pair. `tensors` holds the shares of single tensors, where these were asked for.

    a_0 and b_0 are the first recorded iterates; d_a = x_a - x_a', d_b likewise, ' being the record before (for a point
    between two records, d_b is their chord). None: at least one run has no such chord here.
    """

    dist_sq: float = 0.0  # |x_a - x_b|^2
    init_sq_a: float = 0.0  # |x_a - a_0|^2
    init_sq_b: float = 0.0  # |x_b - b_0|^2
    displacement_dot: float = 0.0  # <x_a - a_0, x_b - b_0>
    step_sq_a: float | None = None  # |d_a|^2
    step_sq_b: float | None = None  # |d_b|^2
    step_dot: float | None = None  # <d_a, d_b>
    tensors: dict[str, PairScalars] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            setattr(self, name, (getattr(self, name) or 0.0) + value)

    @property
    def values(self) -> list[float]:
        found = [getattr(self, each.name) for each in fields(self) if each.name != "tensors"]
        return [value for value in found if value is not None]


def summed(rows: Iterable[RowScalars]) -> RowScalars:
    """The sum of several tensors' shares of one row; what one of them lacks is lacking in the sum."""
    first, *others = rows
    total = first.keep(_names(StepScalars), _names(ReferenceScalars))
    for row in others:
        for mine, theirs in zip(total.all, row.all, strict=True):
            for name in _names(type(mine)):
                a, b = getattr(mine, name), getattr(theirs, name)
                setattr(mine, name, None if a is None or b is None else a + b)
    total.own.replayed = first.own.replayed
    return total


def _names(kind: type[StepScalars | ReferenceScalars]) -> list[str]:
    return [each.name for each in fields(kind) if each.name not in ("step", "replayed")]


def agree(rows: Sequence[RowScalars]) -> None:
    """Make rows that will be averaged have the same values: what one lacks, none has."""
    for group in zip(*(row.all for row in rows), strict=True):
        for each in fields(group[0]):
            if each.name == "replayed":
                value: Any = all(getattr(row, "replayed", True) for row in group)
            elif any(getattr(row, each.name) is None for row in group):
                value = None
            else:
                continue
            for row in group:
                setattr(row, each.name, value)


def _copy(row: S, names: Collection[str]) -> S:
    return type(row)(step=row.step, **{name: getattr(row, name) for name in names})


def _take(mine: StepScalars | ReferenceScalars, theirs: StepScalars | ReferenceScalars) -> None:
    for each in fields(theirs):
        value = getattr(theirs, each.name)
        if value is not None and value is not False:
            setattr(mine, each.name, value)


#: Products by name: where each stands among sums.
Places = Mapping[str, int]


class TensorSums(Mapping[str, RowScalars]):
    """The shares of single tensors in the products of a row, which are made to rows when somebody looks at them."""

    def __init__(
        self, step: int, tensors: Sequence[str], parts: np.ndarray, own: Places, towards: Sequence[Places]
    ) -> None:
        """`parts` [tensors, outputs]: sums; the other places are those of the row's products."""
        self._step, self._numbers = step, {name: number for number, name in enumerate(tensors)}
        self._parts, self._own, self._towards = parts, own, towards

    def __getitem__(self, tensor: str) -> RowScalars:
        sums = self._parts[self._numbers[tensor]]

        def values(places: Places) -> dict[str, Any]:
            return dict(zip(places, sums[list(places.values())].tolist(), strict=True))

        references = [ReferenceScalars(self._step, **values(places)) for places in self._towards]
        return RowScalars(StepScalars(self._step, **values(self._own)), references)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def values_of(self, number: int | None, fields: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
        """By tensor, some fields of the step's own (None) or towards one of the references."""
        places = self._own if number is None else self._towards[number]
        known = [name for name in fields if name in places]
        rows = self._parts[:, [places[name] for name in known]].tolist()
        if len(known) < len(fields):
            at = [known.index(name) if name in places else -1 for name in fields]
            rows = [[None if place < 0 else row[place] for place in at] for row in rows]
        return dict(zip(self._numbers, map(tuple, rows), strict=True))


@dataclass
class FlowScalars:
    """What the integration gives at one recorded time; None where there is nothing.

    init_dist = |x_t - x_s|, flow_dist = |x_t - theta|, flow_error = |theta - theta of the coarser solution|, loss =
    f(x_t), flow_loss = f(theta), flow_grad_norm = |grad f(theta)|, and the extreme eigenvalues of the Hessian at theta.
    """

    init_dist: float | None = None
    flow_dist: float | None = None
    flow_error: float | None = None
    loss: float | None = None
    flow_loss: float | None = None
    flow_grad_norm: float | None = None
    lambda_min: float | None = None
    lambda_min_residual: float | None = None
    lambda_max: float | None = None
    lambda_max_residual: float | None = None

"""The typed rows that the heavy pass produces: inner products and losses, one row a step and one a reference.

None means that the row does not have the value; why is known to the rows of the report (rows.py), not here.
Letters as in definitions: d_t = x_t - x_{t-1}, e_t = x_t - x*, g_t = grad f(x_t; z_t), s a later record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS

#: What is known of one of the batches of a row, beside inner products.
OF_BATCHES = ("examples", "averaged")
#: Sums over the coordinates of a tensor that vary over the batches of a row: of 1, and, z being such a coordinate
#: standardised over the batches, of log |z|, and of log |sum of z| over the block that ends with this batch, or 0.
OF_TAILS = ("tail_coordinates", "tail_logs", "tail_block_logs")

#: What a step has by itself beside inner products: losses; the extreme eigenvalues of the Hessian of f(.; z_t) at x_t
#: with |H v - lambda v| and the error that this implies (an eigenvalue that has not converged is None, and these are
#: numbers);
#: <g_t, H g_t> / |g_t|^2; how many products with H were made; by how much they are not symmetric, None where they are;
#: how many examples the batch has, and whether the loss is their mean (1.0) or their sum (0.0), where that is known.
STEP_EVALUATIONS = (
    *("loss", "loss_previous", "lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual"),
    *("lambda_max_error", "lambda_min_error"),
    *("grad_curvature", "hessian_products", "hessian_asymmetry"),
    *OF_BATCHES,
    *OF_TAILS,
)
STEP_VALUES = (*STEP_PRODUCTS, *STEP_EVALUATIONS)
#: What it has towards one reference: inner products, and f(x*; z_t).
REFERENCE_VALUES = (*REFERENCE_PRODUCTS, "loss_ref")

if TYPE_CHECKING:

    @dataclass(init=False)
    class _Scalars:
        """A row with the step's number, and the fields that catalogue.py and the names above give it."""

        step: int

        def __init__(self, step: int, **values: float | bool | None) -> None: ...

        def __getattr__(self, name: str) -> float | None: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    class StepScalars(_Scalars):
        """What one step t has by itself; `replayed`: whether loss and g_t were replayed."""

        replayed: bool

    class ReferenceScalars(_Scalars):
        """What one step t has towards one reference x*."""

else:

    def _scalars(name: str, values: Iterable[str], *more: tuple[str, type, Any]) -> type:
        fields = [("step", int), *((each, float | None, None) for each in values), *more]
        return make_dataclass(name, fields, slots=True, namespace={"__module__": __name__})

    StepScalars = _scalars("StepScalars", STEP_VALUES, ("replayed", bool, False))
    ReferenceScalars = _scalars("ReferenceScalars", REFERENCE_VALUES)


@dataclass(slots=True)
class LagScalars:
    """Products of a step and the one k steps on, towards one reference. g, e are the gradient and x - x* at the step,
    g', e' (`later`) those k steps on; `rounding` is what |p|^2 / |g|^2 can be of nothing, p the part of g orthogonal to
    e, by the rounding of what was recorded."""

    grad_sq: float = 0.0
    grad_dot_ref: float = 0.0
    ref_sq: float = 0.0
    later_grad_sq: float = 0.0
    later_grad_dot_ref: float = 0.0
    later_ref_sq: float = 0.0
    grad_dot_later_grad: float = 0.0
    grad_dot_later_ref: float = 0.0
    ref_dot_later_grad: float = 0.0
    ref_dot_later_ref: float = 0.0
    rounding: float = 0.0


LAG_PRODUCTS = tuple(each.name for each in fields(LagScalars))

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
    total = first.keep(STEP_VALUES, REFERENCE_VALUES)
    for row in others:
        for mine, theirs in zip(total.all, row.all, strict=True):
            for name in _names(mine):
                a, b = getattr(mine, name), getattr(theirs, name)
                setattr(mine, name, None if a is None or b is None else a + b)
    total.own.replayed = first.own.replayed
    return total


def _names(row: StepScalars | ReferenceScalars) -> tuple[str, ...]:
    return STEP_VALUES if isinstance(row, StepScalars) else REFERENCE_VALUES


def agree(rows: Sequence[RowScalars]) -> None:
    """Make rows that will be averaged have the same values: what one lacks, none has."""
    for group in zip(*(row.all for row in rows), strict=True):
        for name in _names(group[0]):
            if any(getattr(row, name) is None for row in group):
                for row in group:
                    setattr(row, name, None)
        if isinstance(group[0], StepScalars):
            replayed = all(getattr(row, "replayed", True) for row in group)
            for row in group:
                row.replayed = replayed


def _copy(row: S, names: Collection[str]) -> S:
    return type(row)(step=row.step, **{name: getattr(row, name) for name in names})


def _take(mine: StepScalars | ReferenceScalars, theirs: StepScalars | ReferenceScalars) -> None:
    for name in _names(theirs):
        if (value := getattr(theirs, name)) is not None:
            setattr(mine, name, value)
    if getattr(theirs, "replayed", False):
        mine.replayed = True


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
    hessian_asymmetry: float | None = None

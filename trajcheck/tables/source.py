"""What columns are made from: a scalar or a recorded value on every row, with the reasons for which it can be
missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from trajcheck.metrics.averaging import Averaging
from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.resolution import BOUND
from trajcheck.runs.optimizer_memory import Skip
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row, Rows, loss_missing
from trajcheck.scalars.values import LagScalars, ReferenceScalars, RowScalars, StepScalars

NEEDS_OBJECTIVE = "needs the loss replayed: give --objective FILE.py:NAME"
NOT_FINITE = "the replayed loss or gradient is not finite here"

#: Why f_inf is not known.
NO_FLOOR = "f_inf, a lower bound of the losses, is not known: give --loss-floor, 0 where they cannot be negative"

T = TypeVar("T")


class Floor(NamedTuple):
    """`value`, which no loss is below, or None; `told` whether somebody said so, and why it is known otherwise."""

    value: float | None = None
    told: bool = False


@dataclass(frozen=True)
class Source:
    """`scalars` are by place in the trajectory, all on one kind of sample; `epsilon` is that of the replay's dtype,
    None when nothing was replayed.

    `second` are those of another precision (replay/plan.py), of epsilon `second_epsilon`, at the places that were
    evaluated in it. `batches`: by place, the scalars of each of the batches that the row is measured on, where these
    are several. `whole`: the source of all tensors, where this one is of some of them.
    """

    trajectory: Trajectory
    rows: Rows
    scalars: Mapping[int, RowScalars]
    skip: Skip
    smoothing: int  # rows over which lo_lr_smooth is taken
    epsilon: float | None = None
    second_epsilon: float = 0.0
    ref_gradients: bool = False
    curvature: Collection[int] = ()  # places of the rows that were asked for it
    ends: str = "max"  # which eigenvalues were: max, min, both
    sample: str = "own"
    path_integral: bool = False
    tail_index: bool = False
    averaging: Averaging = field(default_factory=Averaging)
    lags: Mapping[int, Sequence[Sequence[LagScalars | str]]] = field(default_factory=dict)  # by lag, reference and row
    second: Mapping[int, RowScalars] = field(default_factory=dict)
    floor: Floor = field(default_factory=Floor)
    batches: Mapping[int, Sequence[RowScalars]] = field(default_factory=dict)
    whole: Source | None = None

    @cached_property
    def in_second(self) -> Source:
        """The same rows in the second precision; what was not evaluated in it is not there."""
        if self.whole is not None and not self.second:
            return self.whole.in_second  # nothing was, of all tensors or of one
        scalars = {}
        for place, row in self.scalars.items():
            step = row.own.step
            nothing = RowScalars(StepScalars(step), [ReferenceScalars(step) for _ in row.references])
            scalars[place] = self.second.get(place, nothing)
        return replace(self, scalars=scalars, second={}, whole=None)

    @cached_property
    def below_floor(self) -> str:
        """Which loss of a row contradicts the floor, in words; '' where none does by more than its rounding."""
        value = self.floor.value
        if value is None or self.epsilon is None:
            return ""
        found = []
        for row in self.rows.rows:
            scalars = self.scalars[row.place]
            losses = [scalars.own.loss, scalars.own.loss_previous, *(each.loss_ref for each in scalars.references)]
            found += [(loss, row.step) for loss in losses if loss is not None]
        if not found:
            return ""
        lowest, step = min(found)
        allowed = BOUND * self.epsilon * max(abs(loss) for loss, _ in found)
        if lowest >= value - allowed:
            return ""
        return f"a loss on the row of step {step} is {lowest:.6g}, which is below f_inf = {value:.6g}"

    @property
    def fixed(self) -> bool:
        """Whether every row is on the same sample."""
        return self.sample in ("probe", "full")

    def each(self, value: Callable[[Row], T]) -> list[T]:
        return [value(row) for row in self.rows.rows]

    @cached_property
    def own(self) -> list[StepScalars]:
        return self.each(lambda row: self.scalars[row.place].own)

    @cached_property
    def operands(self) -> dict[tuple[str, int | None], Any]:
        """The Operands of all tensors by table and reference, which keep here what is the same for each tensor."""
        return {}

    @cached_property
    def no_pair(self) -> list[str]:
        if self.whole is not None:
            return self.whole.no_pair
        return self.each(lambda row: row.no_pair)

    @cached_property
    def no_replay(self) -> list[str]:
        if self.whole is not None:
            return self.whole.no_replay
        return self.each(lambda row: NEEDS_OBJECTIVE if self.epsilon is None else row.no_sample_of(self.sample))

    @cached_property
    def no_gradient(self) -> list[str]:
        return self.each(self.gradient_missing)

    def gradient_missing(self, row: Row) -> str:
        """Why a row has no g_t: it is replayed where there is an objective and a sample, else, on the step's own
        sample, taken as recorded."""
        if self.epsilon is None:
            return row.no_gradient
        if self.sample != "own" and row.no_sample_of(self.sample):
            return row.no_sample_of(self.sample)
        if self.sample == "own" and row.no_sample:
            return row.no_gradient and f"{row.no_sample}, and {row.no_gradient}"
        return "" if self.scalars[row.place].own.replayed else NOT_FINITE

    def recorded(self, name: str, *reasons: list[str]) -> Column:
        """A scalar of the step."""
        return column(map(attrgetter(name), self.own), *reasons)

    def replayed(self, name: str, *reasons: list[str]) -> Column:
        """A scalar of the step that only a replay gives."""
        return self.recorded(name, *reasons, self.no_replay, self.failed(name))

    def failed(self, name: str) -> list[str]:
        """Where a scalar that a replay gives is not there, and was not finite."""
        return [NOT_FINITE if value is None else "" for value in map(attrgetter(name), self.own)]

    @cached_property
    def loss(self) -> Column:
        """f(x_t; z): replayed where the row was, else, on the step's own sample, as recorded."""
        if self.sample != "own":
            return self.replayed("loss")
        values, reasons = [], []
        for row, own in zip(self.rows.rows, self.own, strict=True):
            failed = self.epsilon is not None and not row.no_sample and not own.replayed
            value = own.loss if own.replayed else self.trajectory.snapshots[row.place].loss
            values.append(None if failed else value)
            reasons.append(
                NOT_FINITE if failed else "" if value is not None else loss_missing(self.trajectory, row.place)
            )
        return column(values, reasons)

    def norm(self, squares: str, number: int | None, reasons: np.ndarray) -> Column:
        """The norm whose square is a scalar of the step, or of its reference of that number: over all parameters, or
        the sum of the tensors' norms where `averaging` asks for it."""

        def value(row: RowScalars) -> float | None:
            shares = list(row.tensors.values()) or [row]
            found = [getattr(each.own if number is None else each.references[number], squares) for each in shares]
            return None if None in found else sum(value**0.5 for value in found)

        rows = [self.scalars[row.place] for row in self.rows.rows]
        if self.averaging.per_tensor:
            return column(map(value, rows), reasons)
        found = [getattr(row.own if number is None else row.references[number], squares) for row in rows]
        return column([None if each is None else each**0.5 for each in found], reasons)

    def per_group(self, name: str) -> Column:
        """A value recorded for each parameter group, as one number where the groups agree."""
        values, reasons = [], []
        for row in self.rows.rows:
            snapshot = self.trajectory.snapshots[row.place]
            groups = getattr(snapshot, name)
            agree = bool(groups) and len(set(groups)) == 1
            none = snapshot.omitted.get(name, f"no {name} was recorded")
            values.append(groups[0] if agree else None)
            reasons.append("" if agree else f"parameter groups differ in {name}" if groups else none)
        return column(values, reasons)

    @cached_property
    def places(self) -> np.ndarray:
        return np.array(self.each(lambda row: row.place))

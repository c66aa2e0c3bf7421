"""What the columns of one table are made of, by name: inner products, losses, rates; each a column with its reasons.

An inner product is undefined where a vector of it is missing, for that vector's reason; nothing more has to be said for
a product that is new in inner_products/catalogue.py. What is no product is made by a function under `@operand`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from trajcheck.inner_products.catalogue import CHORD_PRODUCTS, REFERENCE_PRODUCTS, STEP_PRODUCTS, vectors_needed
from trajcheck.metrics.columns import Column, column, first_reasons
from trajcheck.metrics.quantity import ALLOCATION, REFERENCES, STEPS
from trajcheck.runs.logs.all_losses import sums_between
from trajcheck.runs.optimizer_memory import PROBE, Skip
from trajcheck.runs.references import Reference
from trajcheck.scalars.rows import Row
from trajcheck.scalars.values import REFERENCE_VALUES, ReferenceScalars
from trajcheck.tables.evaluated import Evaluated
from trajcheck.tables.source import NEEDS_OBJECTIVE, NOT_FINITE, Source

NEEDS_REF_GRADIENTS = "needs the gradient at the reference: give --ref-gradients"
#: Vectors that a replay alone brings.
REPLAYED = {"gradient_previous", "gradient_between", "gradient_reference", "recorded"}
#: Products that tell of the optimizer, not only of two points: why a row has none, where something else moved them.
OF_UPDATES: Mapping[str, Callable[[Row], str]] = {
    "next_dot_ref": lambda row: row.no_next_update,
    **dict.fromkeys(CHORD_PRODUCTS, lambda row: row.no_update),
    "previous_grad_dot_step": lambda row: row.no_update,
}

F = TypeVar("F", bound="Callable[[Operands], Any]")


@dataclass(frozen=True)
class Made:
    """How an operand is made: of which other operands, products and evaluations, and by which function; `second`: of
    which operands in the second precision; `of_rows`: whether it is the same for every tensor."""

    needs: tuple[str, ...]
    products: tuple[str, ...]
    evaluations: tuple[str, ...]
    function: Callable[[Operands], Any]
    second: tuple[str, ...] = ()
    of_rows: bool = False


#: Operands that are no products, by table and name.
MADE: dict[tuple[str, str], Made] = {}


def operand(
    *tables: str,
    needs: Sequence[str] = (),
    products: Sequence[str] = (),
    evaluations: Sequence[str] = (),
    second: Sequence[str] = (),
    of_rows: bool = False,
) -> Callable[[F], F]:
    """Declare that a function makes the operand of its name, in some tables. It takes the `Operands`.

    `needs`: the operands that it asks for; `products`: those that it takes from other rows than its own; `evaluations`
    of the objective beyond f and its gradient at x_t: `loss_previous`, `gradient_previous`, `descent`, `loss_ref`;
    `second`: the operands that it asks for in the second precision; `of_rows`: it tells of rows and settings alone, and
    is made once for all tensors.
    """

    def declare(function: F) -> F:
        for table in tables:
            made = Made(tuple(needs), tuple(products), tuple(evaluations), function, tuple(second), of_rows)
            MADE[table, function.__name__] = made
        return function

    return declare


class Operands(Evaluated):
    """Of the path by itself (steps.csv, or another table of it), or towards the `number`-th reference (references.csv),
    on one sample."""

    def __init__(
        self, source: Source, number: int | None = None, reference: Reference | None = None, of_path: str = STEPS
    ) -> None:
        self.source, self.number, self.reference = source, number, reference
        super().__init__(of_path if number is None else REFERENCES, self._operand)

    def _operand(self, name: str) -> Any:
        made = MADE.get((self.table, name))
        if made is None:
            return self.product(name)
        return made.function(self) if self.of_all is self or not made.of_rows else self.of_all[name]

    @cached_property
    def of_all(self) -> Operands:
        """The same of all tensors, where these are of some of them."""
        whole = self.source.whole
        if whole is None:
            return self
        place = self.table, self.number
        if place not in whole.operands:
            whole.operands[place] = Operands(whole, self.number, self.reference, self.table)
        found: Operands = whole.operands[place]
        return found

    @cached_property
    def holds(self) -> set[str]:
        """Which of the conditions of columns hold."""
        return {name for name, holds_in in CONDITIONS.items() if holds_in(self)}

    @property
    def thinned(self) -> bool:
        """Whether some of what sums count, updates in steps.csv and steps in references.csv, is on no row."""
        rows = self.source.rows
        return rows.steps_thinned if self.table == REFERENCES else rows.updates_thinned

    @cached_property
    def second(self) -> Operands:
        """The same in the second precision, on the rows that were evaluated in it."""
        return Operands(self.source.in_second, self.number, self.reference)

    # -- inner products -----------------------------------------------------------------------------------------------

    def product(self, name: str) -> Column:
        """An inner product of the row, or of the row and its reference."""
        return column(self._values(name), self.why_not(name))

    def norm(self, name: str) -> Column:
        """The norm whose square is a product: of all parameters, or as `averaging` says."""
        return self.source.norm(name, None if name in STEP_PRODUCTS else self.number, self.why_not(name))

    def why_not(self, name: str) -> np.ndarray:
        """Why a product is missing, row by row; without a replay that is so for all tensors alike."""
        known = self.of_all._whys if self.source.epsilon is None else self._whys
        if name not in known:
            known[name] = first_reasons(len(self.source.rows.rows), self._why_not(name))
        return known[name]

    @cached_property
    def _whys(self) -> dict[str, np.ndarray]:
        return {}

    def _why_not(self, name: str) -> list[list[str]]:
        """Reasons for each vector that a product needs, of which the first counts."""
        source = self.source
        vectors = vectors_needed([STEP_PRODUCTS.get(name) or REFERENCE_PRODUCTS[name]])
        asked = {
            "gradient_reference": lambda: self.no_reference_gradient,
            "previous": lambda: source.no_pair,
            "gradient_previous": lambda: source.no_pair,
            "next": lambda: source.each(lambda row: row.no_next),
            "recorded": lambda: source.each(lambda row: row.no_gradient),
            **({} if vectors & REPLAYED else {"gradient": lambda: source.no_gradient}),
            "regularised": lambda: source.no_gradient,
            "skip": lambda: self.no_skip,
        }
        reasons = [why() for vector, why in asked.items() if vector in vectors]
        if name in OF_UPDATES:
            reasons.append(source.each(OF_UPDATES[name]))
        if vectors & REPLAYED:
            reasons += [source.no_replay, self.failed(name)]
        return reasons

    def replayed(self, name: str, *reasons: list[str]) -> Column:
        """A scalar that only a replay gives."""
        return column(self._values(name), *reasons, self.source.no_replay, self.failed(name))

    def failed(self, name: str) -> list[str]:
        """Where a scalar that a replay gives is not there, and so was not finite."""
        return [NOT_FINITE if value is None else "" for value in self._values(name)]

    def _values(self, name: str) -> list[float | None]:
        scalars = self.towards if name in REFERENCE_VALUES else self.source.own
        return list(map(attrgetter(name), scalars))

    @cached_property
    def towards(self) -> list[ReferenceScalars]:
        """The scalars of each row towards the reference."""
        source, number = self.source, self.number
        assert number is not None
        return source.each(lambda row: source.scalars[row.place].references[number])

    @cached_property
    def no_reference_gradient(self) -> list[str]:
        source = self.source
        missing = "" if source.ref_gradients else NEEDS_REF_GRADIENTS
        return source.each(lambda row: NEEDS_OBJECTIVE if source.epsilon is None else missing)

    @cached_property
    def no_skip(self) -> list[str]:
        reference = self.reference
        assert reference is not None
        return self.source.each(lambda row: own_term(row, reference, self.source.skip))


def own_term(row: Row, reference: Reference, skip: Skip) -> str:
    """Why cos_skip is not what frees a cosine of the step's own term; '' where it does.

    Towards a later iterate, x_t - x_T holds all that the optimizer makes of g_t, and x_s - x_T nothing, if it has made
    all of it by step s, and x_T is no earlier. But where x* lies behind, or elsewhere, cos(g_t, x_t - x*) is free of it
    already, and x_s - x* would bring it in, with the other sign; and of an x* that holds a part of it, as an average
    does, x_s - x* holds the rest.
    """
    depends = reference.dependence
    if depends.free is not None and row.step >= depends.free:
        return "x* does not depend on this step's sample: cos holds no term of the step's own"
    if depends.free is None and row.step >= depends.whole:
        return f"x* may depend on this step's sample: {depends.found}. {PROBE}"
    if row.step >= depends.whole:
        return f"x* averages iterates before and after this step. {PROBE}"
    if skip.steps is None:
        return skip.unknown
    needed = min(skip.steps, skip.memory.steps or skip.steps)
    if row.skip is None or row.step + needed > depends.whole:
        return skip.too_far
    return skip.taken(row.skip, int(depends.whole))


def _sums_of_log(o: Operands) -> bool:
    """Whether a log has all losses from some record to the next."""
    trajectory = o.source.trajectory
    return any(total is not None for total in sums_between(trajectory.log, trajectory.steps))


#: What a column may take beside its operands (Quantity.when): whether a table on one sample has it.
CONDITIONS: Mapping[str, Callable[[Operands], bool]] = {
    "own": lambda o: o.source.sample == "own",
    "fixed": lambda o: o.source.fixed,
    "replay": lambda o: o.source.epsilon is not None,
    "decay": lambda o: o.source.trajectory.settings.has_decay,
    "windows": lambda o: any(snapshot.window is not None for snapshot in o.source.trajectory.snapshots),
    "all_losses": lambda o: CONDITIONS["windows"](o) or _sums_of_log(o),
    "curvature": lambda o: bool(o.source.curvature),
    "lambda_max": lambda o: bool(o.source.curvature) and o.source.ends != "min",
    "lambda_min": lambda o: bool(o.source.curvature) and o.source.ends != "max",
    "path_integral": lambda o: o.source.path_integral,
    "allocate": lambda o: o.table == ALLOCATION,
    "lags": lambda o: bool(o.source.lags),
    "thinned": lambda o: o.thinned,
    "batches": lambda o: bool(o.source.batches),
    "tail_index": lambda o: o.source.tail_index and o.source.sample == "probe",
}


def columns_of(operands: Operands, *, of_tensor: bool = False) -> dict[str, Column]:
    """The columns of the table, in the order of the contract: all of them, or those that make sense for one tensor."""
    return operands.columns(operands.of_all.holds, of_tensor=of_tensor)

"""What is to be measured on the rows of a run: which products, evaluations and tensors; from headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, product
from typing import NamedTuple

from trajcheck.inner_products.catalogue import (
    BATCH_PRODUCTS,
    CHORD_PRODUCTS,
    REFERENCE_PRODUCTS,
    STEP_PRODUCTS,
    SUPPORT_PRODUCTS,
    vectors_needed,
)
from trajcheck.measuring.options import Options
from trajcheck.metrics.families import Family
from trajcheck.metrics.resolution import ROWS as SECOND
from trajcheck.replay.plan import REFERENCE_REPLAYED, STEP_REPLAYED, Plan
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.micro_batches import micro_batches
from trajcheck.scalars.rows import Row, Rows, evenly
from trajcheck.scalars.values import OF_BATCHES, OF_TAILS
from trajcheck.tables.needed import Needed, needed
from trajcheck.tables.scale import ROWS

_ALONG = ("grad_curvature", "hessian_products", "hessian_asymmetry")
_CURVATURE: dict[str, tuple[str, ...]] = {
    "max": ("lambda_max", "lambda_max_residual", "lambda_max_error", *_ALONG),
    "min": ("lambda_min", "lambda_min_residual", "lambda_min_error", *_ALONG),
}
_CURVATURE["both"] = tuple(dict.fromkeys(_CURVATURE["max"] + _CURVATURE["min"]))


@dataclass(frozen=True)
class Request:
    """The union of what the families need, and nothing else. `twice`: on how many rows, at most, the replay is repeated
    in a second precision, where there is one."""

    trajectory: Trajectory
    rows: Rows
    options: Options
    families: Mapping[str, Family]
    twice: int = SECOND

    @cached_property
    def needed(self) -> Needed:
        """What the columns of the families need."""
        holds = {
            "path_integral": bool(self.options.path_points),
            "allocate": self.options.allocate,
            "batches": self.several_batches,
            "tail_index": self.options.tail_index,
        }
        return needed(self.families.values(), without=[name for name, here in holds.items() if not here])

    @cached_property
    def several_batches(self) -> bool:
        """Whether some row is measured on several batches: probe batches, or the micro-batches of its step."""
        if self.options.objective is None:
            return False
        return "probe" in self.options.samples or any(map(self._accumulated, self.rows.rows))

    def _accumulated(self, row: Row) -> int:
        """Over how many micro-batches a step was accumulated that is measured on its own sample."""
        own = "own" in self.options.samples and not row.no_sample
        return micro_batches(self.trajectory, row.place) if own else 0

    def micro_batches(self, row: Row) -> int:
        """How many micro-batches of a row meet one another in the replay, where there is one."""
        meet = self.options.objective and self.plan.batch_sums and row.place in self.rows.places
        return self._accumulated(row) if meet else 0

    @cached_property
    def curvature(self) -> frozenset[int]:
        """Places of the rows at which the Hessian's extreme eigenvalues are computed."""
        every = self.options.curvature
        return frozenset(row.place for row in self.rows.rows[::every]) if every else frozenset()

    @property
    def every_tensor(self) -> bool:
        """Whether columns of single tensors, or sums over them, are made."""
        return bool(self.options.layers or self.options.group or self.options.convention)

    @cached_property
    def by_tensor(self) -> frozenset[int]:
        """Places of the rows whose products are kept tensor by tensor: all for layers, else a few, to see whose scale
        does not matter."""
        if self.every_tensor or self.options.allocate:
            return frozenset(row.place for row in self.rows.work)
        if "secant" not in self.families:
            return frozenset()
        replayed = self.options.objective is not None
        able = [row.place for row in self.rows.rows if not (row.no_sample if replayed else row.no_gradient)]
        return frozenset(able[:: max(1, len(able) // ROWS)][:ROWS])

    @cached_property
    def step_products(self) -> tuple[str, ...]:
        radial = ("param_sq", "grad_sq", "grad_dot_param") if self.by_tensor else ()
        return tuple(self.needed.step_products | dict.fromkeys(radial))

    @cached_property
    def reference_products(self) -> tuple[str, ...]:
        return tuple(self.needed.reference_products)

    @cached_property
    def vectors(self) -> frozenset[str]:
        """The vectors that the products are made of."""
        return frozenset(
            vectors_needed(
                [STEP_PRODUCTS[name] for name in self.step_products]
                + [REFERENCE_PRODUCTS[name] for name in self.reference_products]
            )
        )

    @cached_property
    def replayed(self) -> frozenset[int]:
        """Steps whose gradients the replay brings: their recorded ones are not read."""
        if not self.options.objective:
            return frozenset()
        own = "own" in self.options.samples
        return frozenset(row.step for row in self.rows.work if not (own and row.no_sample))

    @cached_property
    def plan(self) -> Plan:
        """What the replay is asked for."""
        fidelity = ("recorded_sq", "disagreement_sq")
        return Plan(
            samples=self.options.samples,
            evaluations=frozenset(self.needed.evaluations),
            step_products=[
                name for name in dict.fromkeys(("grad_sq", *self.step_products, *fidelity)) if name in STEP_REPLAYED
            ],
            reference_products=[name for name in self.reference_products if name in REFERENCE_REPLAYED],
            ref_gradients=self.options.ref_gradients,
            curvature=self.curvature,
            ends=self.options.curvature_ends,
            curvature_tolerance=self.options.curvature_tolerance,
            by_tensor=self.by_tensor,
            memory=self.options.memory_bytes,
            path_points=self.options.path_points,
        )

    @cached_property
    def second_plan(self) -> Plan:
        """What the rows that are replayed in a second precision are asked for: what differences are made of."""
        need = self.needed.in_second
        return replace(
            self.plan,
            evaluations=frozenset(need.evaluations),
            step_products=[name for name in need.step_products if name in STEP_REPLAYED],
            reference_products=[name for name in need.reference_products if name in REFERENCE_REPLAYED],
            curvature=(),
            by_tensor=self.by_tensor if self.every_tensor else (),
            path_points=0,
        )

    @cached_property
    def second(self) -> frozenset[int]:
        """Places of the rows that are replayed in a second precision too, where there is one: spread over the run,
        first of those with a step before them and every sample that was asked for."""
        if not self.options.objective or not self.needed.second:
            return frozenset()

        def lacks(row: Row) -> int:
            samples = [name for name in self.options.samples if row.no_sample_of(name)]
            return 2 * len(samples) + bool(row.no_pair)

        able = [row for row in self.rows.rows if any(not row.no_sample_of(name) for name in self.options.samples)]
        chosen: list[int] = []
        for _, same in groupby(sorted(able, key=lacks), key=lacks):
            chosen += evenly([row.place for row in same], self.twice - len(chosen))
        return frozenset(chosen)

    @cached_property
    def draws(self) -> dict[str, int]:
        """How many samples a row has under each convention."""
        probes = sum(probe.batches for probe in self.trajectory.probes)
        return {sample: probes if sample == "probe" else 1 for sample in self.options.samples}

    # -- the fields of scalars that come of it ------------------------------------------------------------------------

    def stored_fields(self, row: Row, reference: bool) -> tuple[str, ...]:
        """What recorded vectors give, of the step or towards a reference; no gradient of a step that is replayed."""
        return self._stored_fields[row.place in self.rows.places, row.step in self.replayed, reference]

    @cached_property
    def _stored_fields(self) -> dict[tuple[bool, bool, bool], tuple[str, ...]]:
        found = {}
        for is_row, replayed, reference in product((False, True), repeat=3):
            table = REFERENCE_PRODUCTS if reference else STEP_PRODUCTS
            names = self.reference_products if reference else self.step_products
            without = {"gradient", "regularised"} if replayed else set()
            found[is_row, replayed, reference] = tuple(
                name
                for name in names
                if (is_row or name in SUPPORT_PRODUCTS) and not vectors_needed([table[name]]) & without
            )
        return found

    def replayed_fields(self, row: Row, sample: str, reference: bool, second: bool = False) -> tuple[str, ...]:
        """What the replay, or that in the second precision, gives on a sample, of the step or towards a reference."""
        is_row = row.place in self.rows.places
        curved = is_row and row.place in self.curvature and not second
        own, batches = sample == "own", is_row and sample == "probe"
        case = _Case(is_row, is_row and not row.no_pair, curved, own, batches, reference, second)
        if case not in self._replayed_fields:
            self._replayed_fields[case] = self._fields_of(case)
        return self._replayed_fields[case]

    @cached_property
    def _replayed_fields(self) -> dict[_Case, tuple[str, ...]]:
        return {}

    def _fields_of(self, case: _Case) -> tuple[str, ...]:
        plan = self.second_plan if case.second else self.plan
        step, towards = plan.products(case.own, case.is_row)
        if case.reference:
            return (*(("loss_ref",) if plan.ref_gradients or "loss_ref" in plan.evaluations else ()), *towards)
        return (
            *("loss", "replayed"),
            *(("loss_previous",) if case.paired and "loss_previous" in plan.evaluations else ()),
            *step,
            *((*BATCH_PRODUCTS, *OF_BATCHES) if case.batches and plan.batch_sums else ()),
            *(OF_TAILS if case.batches and plan.tails else ()),
            *(CHORD_PRODUCTS if case.paired and plan.path_points else ()),
            *(_CURVATURE[plan.ends] if case.curved else ()),
        )


class _Case(NamedTuple):
    """On what it depends which fields a row's scalars have."""

    is_row: bool
    paired: bool
    curved: bool
    own: bool
    batches: bool
    reference: bool
    second: bool

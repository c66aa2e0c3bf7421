"""What a replay evaluates and reads for each row; known beforehand, from headers alone.

The replay (replay.py) follows it, and --dry-run (cost.py) counts by it. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trajcheck.files.extents import EPSILON
from trajcheck.inner_products.catalogue import (
    BATCH_PRODUCTS,
    CHORD_PRODUCTS,
    REFERENCE_PRODUCTS,
    STEP_PRODUCTS,
    SUPPORT_PRODUCTS,
    vectors_needed,
)
from trajcheck.metrics.resolution import NEAREST, ROWS
from trajcheck.objective.dtype_names import AS_IS
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row, Rows

#: Products with a replayed gradient in them; the stored-vector pass gives all others.
_GRADIENTS = {
    *("gradient", "gradient_previous", "gradient_reference", "gradient_between", "recorded", "regularised"),
    *("batch_sum", "unit_sum"),
}
#: Those that only the step's own sample has.
OWN_PRODUCTS = {"recorded_sq", "disagreement_sq", "grad_dot_skip", "grad_dot_next", "step_dot_next"}
STEP_REPLAYED = frozenset(name for name, pair in STEP_PRODUCTS.items() if vectors_needed([pair]) & _GRADIENTS)
REFERENCE_REPLAYED = frozenset(name for name, pair in REFERENCE_PRODUCTS.items() if vectors_needed([pair]) & _GRADIENTS)

#: Samples that are the same on every row.
FIXED = ("probe", "full")


@dataclass(frozen=True)
class Plan:
    """What to evaluate beside f and grad f at x_t, and which products to take; names as in metrics/families.py."""

    samples: Sequence[str]
    evaluations: Collection[str]
    step_products: Collection[str]
    reference_products: Collection[str]
    ref_gradients: bool = False
    curvature: Collection[int] = ()  # places of the rows at which the Hessian's extreme eigenvalues are computed
    curvature_tolerance: float = 1e-4  # the error of an eigenvalue that will do, relative to the largest
    ends: str = "max"  # which of them: max, min, both
    by_tensor: Collection[int] = ()  # places of the rows whose products are also kept tensor by tensor
    memory: int | None = None  # bytes for what the replay keeps on its device (residency.py)
    path_points: int = 0  # of the Gauss-Legendre rule for the path integral; 0: none

    def previous_gradient(self, own: bool) -> bool:
        """Whether grad f(x_{t-1}; z) is evaluated; own samples have the one of the step before recorded."""
        return "gradient_previous" in self.evaluations or ("descent" in self.evaluations and not own)

    @property
    def batch_sums(self) -> bool:
        """Whether the batches of a row meet one another."""
        return not set(BATCH_PRODUCTS).isdisjoint(self.step_products)

    @property
    def tails(self) -> bool:
        """Whether the tails of the noise between probe batches are looked at."""
        return "tails" in self.evaluations and "probe" in self.samples

    def gradient_again(self, name: str, always_fixed: bool) -> bool:
        """Whether grad f at a row's x_t on a sample is asked for again: by the next row, as that of its x_{t-1}, or
        when all batches of the row are known."""
        if name == "probe" and self.batch_sums:
            return True
        if not (self.previous_gradient(own=False) and "loss_previous" in self.evaluations):
            return False
        return always_fixed if name in FIXED else name == "own" and "previous" in self.samples

    def products(self, own: bool, is_row: bool) -> tuple[list[str], list[str]]:
        """The products on one sample, of the step and towards each reference; `own`: the step's own sample."""
        without = {*CHORD_PRODUCTS, *BATCH_PRODUCTS, *(() if own else OWN_PRODUCTS)}
        step = [name for name in self.step_products if name not in without]
        if not is_row:
            return [name for name in step if name in SUPPORT_PRODUCTS], []
        return step, [name for name in self.reference_products if own or name not in OWN_PRODUCTS]

    def vectors(self, own: bool, is_row: bool, references: bool) -> set[str]:
        """The vectors that those products are made of."""
        step, towards = self.products(own, is_row)
        pairs = [STEP_PRODUCTS[name] for name in step]
        return vectors_needed(pairs + [REFERENCE_PRODUCTS[name] for name in towards if references])


@dataclass(frozen=True)
class Reads:
    """What is read for one of `rows.work`, beside references that do not stay on the device.

    `samples` are the conventions on which it is replayed. `iterates` are the places of the iterates it needs, `fresh`
    those of them that the row before does not need. `recorded`: its recorded gradient. `batches` are the places of
    the recorded samples, and `around` those of the records whose frozen parameters and buffers are needed.
    """

    row: Row
    is_row: bool
    samples: tuple[str, ...]
    iterates: frozenset[int]
    fresh: tuple[int, ...]
    recorded: bool
    batches: tuple[int, ...]
    around: tuple[int, ...]


def replay_dtype(trajectory: Trajectory, asked: str | None, *, one: bool = False) -> str:
    """The dtype of the replay by name: as asked, else the run's own, but float32 at least.

    A run whose parameters, frozen ones included, are stored in several floating dtypes has none of its own: each tensor
    keeps its own ("as-is"), unless there must be `one` for all.
    """
    if asked is not None:
        return asked
    stored = set(stored_dtypes(trajectory).values())
    if len(stored) > 1 and not one:
        return AS_IS
    return "float64" if "F64" in stored else "float32"


def second_dtype(trajectory: Trajectory, dtype: str) -> str | None:
    """The precision in which the rounding of a replay is measured: the next wider one or, of float64, float32, which
    shows the same rounding 2^29 times larger. None where there is none: parameters that were stored in float64 are
    others in float32."""
    if dtype == "float64":
        return None if "F64" in stored_dtypes(trajectory).values() else "float32"
    if dtype != AS_IS:
        return {"bfloat16": "float32", "float32": "float64"}.get(dtype)
    codes = set(own_dtypes(trajectory).values())
    if codes <= {"F64"}:
        return None
    return "float64" if codes & {"F64", "F32"} == codes or "F64" in codes else "float32"


def rows_twice(dtype: str) -> int:
    """On how many rows, at most, the rounding of a replay in `dtype` is measured in its second precision."""
    return NEAREST if dtype == "float64" else ROWS


def stored_dtypes(trajectory: Trajectory) -> dict[str, str]:
    """Those of x_t, where masters stand for weights of low precision, and of frozen parameters; floating ones alone."""
    first = trajectory.snapshots[0]
    stored = {name: first.parameters[name].dtype for name in trajectory.shapes}
    stored |= {name: extent.dtype for name, extent in first.frozen.items()}
    return {name: dtype for name, dtype in stored.items() if dtype in EPSILON}


def own_dtypes(trajectory: Trajectory) -> dict[str, str]:
    """The dtypes of the same parameters in the model that was trained."""
    known = trajectory.info.dtypes
    return {name: known.get(name, dtype) for name, dtype in stored_dtypes(trajectory).items()}


def replay_reads(trajectory: Trajectory, rows: Rows, plan: Plan, references: int) -> list[Reads]:
    """The reads of each of `rows.work`, in order. Iterates that the next row needs too stay for it."""
    reads: list[Reads] = []
    there: frozenset[int] = frozenset()
    own_at: int | None = None  # the last row that was replayed on its own sample
    for row in rows.work:
        is_row = row.place in rows.places
        samples = tuple(name for name in plan.samples if not row.no_sample_of(name) and (is_row or name == "own"))
        needed = frozenset(
            place for name in samples for place in _iterates(trajectory, row, is_row, plan, name, references)
        )
        own = plan.vectors(True, is_row, bool(references)) if "own" in samples else set()
        before = "previous" in samples and own_at != row.place - 1
        batches = tuple([row.place] * ("own" in samples) + [row.place - 1] * before)
        fixed = any(name in FIXED for name in samples)
        around = {*batches, *({row.place, row.place - 1} & (needed | {row.place}) if fixed else ())}
        reads.append(
            Reads(
                row=row,
                is_row=is_row,
                samples=samples,
                iterates=needed,
                fresh=tuple(sorted(needed - there)),
                recorded="recorded" in own and not row.no_gradient,
                batches=batches,
                around=tuple(sorted(around)),
            )
        )
        there = needed
        own_at = row.place if "own" in samples else own_at
    return reads


def _iterates(
    trajectory: Trajectory, row: Row, is_row: bool, plan: Plan, sample: str, references: int
) -> frozenset[int]:
    """The places of the iterates that one sample of a row needs."""
    needed = plan.vectors(sample == "own", is_row, bool(references))
    found = {row.place} | {place for name, place in row.iterates.items() if name in needed and place is not None}
    if is_row and not row.no_pair and ("loss_previous" in plan.evaluations or plan.path_points):
        found.add(row.place - 1)
    return frozenset(place for place in found if 0 <= place < len(trajectory.snapshots))


def fixed_everywhere(trajectory: Trajectory) -> bool:
    """Whether probe batches and data sets are evaluated in the same way on every row, each point with its own frozen
    parameters and buffers: in one mode. What was evaluated on them is then known to later rows."""
    return all(each.modes == trajectory.snapshots[0].modes for each in trajectory.snapshots)

"""What the columns of references.csv are made of beside inner products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from trajcheck.metrics.batches import Batches
from trajcheck.metrics.columns import Column, column, constant
from trajcheck.metrics.formulas.secant import NotAlong
from trajcheck.metrics.quantity import REFERENCES
from trajcheck.metrics.weights import Weights
from trajcheck.runs.optimizer_memory import PROBE
from trajcheck.runs.optimizer_settings import OptimizerSettings
from trajcheck.runs.references import Reference
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Rows, unseen_between
from trajcheck.scalars.values import LAG_PRODUCTS, LagScalars
from trajcheck.tables.operands import Operands, operand

SKIPPED = "the loss scaler skipped this step: its gradient is not in x_t - x*"
NOT_LATER = "the reference is not a later iterate of this run"

# -- towards x* ------------------------------------------------------------------------------------------------------


@operand(REFERENCES)
def loss_at_x(o: Operands) -> Column:
    """f(x_t; z), replayed."""
    return o.source.replayed("loss")


@operand(REFERENCES, evaluations=("loss_ref",))
def loss_ref(o: Operands) -> Column:
    """f(x*; z)."""
    return o.replayed("loss_ref")


@operand(REFERENCES, needs=("loss_ref",))
def loss_at_y(o: Operands) -> Column:
    """f(x*; z)."""
    return o["loss_ref"]


@operand(REFERENCES)
def change_missed(o: Operands) -> Column:
    """Of sums towards x* nothing is known beforehand."""
    return constant(0.0, len(o.source.rows.rows))


@operand(REFERENCES, needs=("grad_dot_ref",))
def grad_dot_y(o: Operands) -> Column:
    """<g_t, x_t - x*>."""
    return o["grad_dot_ref"]


@operand(REFERENCES, needs=("ref_grad_change_sq",))
def grad_change_y(o: Operands) -> Column:
    """|grad f(x_t; z) - grad f(x*; z)|."""
    return o.norm("ref_grad_change_sq")


@operand(REFERENCES, needs=("ref_sq",))
def distance_y(o: Operands) -> Column:
    """|x_t - x*|."""
    return o.norm("ref_sq")


@operand(REFERENCES, needs=("batches",))
def probe_batches(o: Operands) -> Batches | None:
    """All probe batches of a row together; None on other samples."""
    found: Batches = o["batches"]
    return found if o.source.sample == "probe" else None


# -- the optimizer's steps -------------------------------------------------------------------------------------------


@operand(REFERENCES)
def smoothing(o: Operands) -> int:
    """Rows over which lo_lr_smooth is taken."""
    return o.source.smoothing


@operand(REFERENCES, of_rows=True)
def not_along(o: Operands) -> NotAlong:
    """Where lo_lr promises nothing: a step that is known not to be along -g_t."""
    return _masked(o.source.each(lambda row: _not_along(o.source.trajectory.settings.at(row.place))))


@operand(REFERENCES, of_rows=True)
def not_along_so_far(o: Operands) -> NotAlong:
    """Where no rate follows of the steps up to a row: one of them is known not to be along -g."""
    settings = o.source.trajectory.settings
    reasons = list(accumulate((_not_along(settings.at(p)) for p in range(o.source.places.max() + 1)), _first))
    return _masked(o.source.each(lambda row: reasons[row.place]))


def _not_along(settings: OptimizerSettings) -> str:
    if settings.plain_sgd is False or (settings.plain_sgd and settings.weight_decay):
        return f"promises nothing for {settings.words}, whose steps are not along -g_t"
    return ""


def _first(one: str, other: str) -> str:
    return one or other


def _masked(reasons: Sequence[str]) -> NotAlong:
    why = np.array(reasons, dtype=object)
    return why != "", why


@operand(REFERENCES, of_rows=True)
def skip_weights(o: Operands) -> Weights:
    """Those of what has x_s in it, which the last steps before x* cannot have."""
    assert o.reference is not None
    return weights_with_skip(o.source.rows, o.reference)


def weights_with_skip(rows: Rows, reference: Reference) -> Weights:
    """Of quantities with x_s: of the steps t with x_s before x* or, where x* averages iterates, no later than the first
    of them. Row t + skip = x* itself has no direction."""
    depends = reference.dependence
    averages = depends.free is not None and depends.free > depends.whole
    return rows.weights_until(depends.whole - rows.skip + averages)


@operand(REFERENCES, of_rows=True)
def floor_weights(o: Operands) -> Weights:
    """Those of what the steps from x_t up to x* make, which exists before x* alone."""
    assert o.reference is not None
    rows, end = o.source.rows, o.reference.step
    return rows.weights_until(rows.counted.stop if end is None else end)


@operand(REFERENCES, of_rows=True)
def floor_lr(o: Operands) -> Column:
    """eta_t where the cosine of pure noise is known."""
    return o.source.per_group("lr").except_where(*_masked(o["no_floor"]))


@operand(REFERENCES, of_rows=True)
def eta_squares_to_ref(o: Operands) -> Column:
    """sum of eta_i^2 over the steps from t up to x*."""
    trajectory, reference = o.source.trajectory, o.reference
    if reference is None or reference.step is None:
        return column([None] * len(o.source.rows.rows), o["no_floor"])
    end = trajectory.steps.index(reference.step)
    sums = dict(enumerate(eta_squares(trajectory.snapshots[: end + 1])))
    unseen = o.source.each(lambda row: unseen_between(trajectory, row.place, end) if row.place < end else "")
    later = o.source.each(
        lambda row: NOT_LATER if row.place >= end else SKIPPED if trajectory.snapshots[row.place].skipped else ""
    )
    unknown = o.source.each(
        lambda row: "the rates of steps that were not recorded are unknown" if sums.get(row.place) is None else ""
    )
    return column(o.source.each(lambda row: sums.get(row.place)), o["no_floor"], later, unseen, unknown)


@operand(REFERENCES, of_rows=True)
def no_floor(o: Operands) -> list[str]:
    """Why the cosine of pure noise is not known, row by row; '' where it is: where every step from the row's up to x*
    was one of plain SGD."""
    trajectory, reference = o.source.trajectory, o.reference
    if reference is None or reference.step is None:
        return [_no_iterate(reference)] * len(o.source.rows.rows)
    end = trajectory.steps.index(reference.step)
    from_here, why = [""] * len(trajectory.steps), ""
    for place in reversed(range(end)):
        from_here[place] = why = _no_floor_of(trajectory, place) or why
    return o.source.each(lambda row: from_here[row.place])


def _no_iterate(reference: Reference | None) -> str:
    """Why the cosine of noise towards a point that is no iterate of the run is not known."""
    if reference is not None and not reference.dependence.known:
        return f"x* may depend on the steps' samples, in a way that is not known: {reference.dependence.found}. {PROBE}"
    return "the reference is an average, another run or a file"


def _no_floor_of(trajectory: Trajectory, place: int) -> str:
    """Why a step was not one of plain SGD, whose part in x_t - x* is eta_t g_t."""
    settings = trajectory.settings.at(place)
    if settings.plain_sgd is None:
        return "the optimizer is unknown: run.json does not name it, or not its momentum"
    if not settings.plain_sgd or settings.weight_decay:
        return f"known for plain SGD only; the run used {settings.words}"
    if trajectory.snapshots[place].held:
        return "known where all parameters are trained: some are not at this step"
    if "gradient" in trajectory.snapshots[place].omitted:
        return "known for plain SGD only; the run's gradients were taken at other parameters than x_t"
    return (
        "known for plain SGD only; the run's gradients were clipped" if trajectory.snapshots[place].clip != 1.0 else ""
    )


def eta_squares(snapshots: Sequence[Snapshot]) -> list[float | None]:
    """For each snapshot, sum of eta_i^2 over ALL steps i from its own up to the last one's; None where it is not known.

    Between two records the sum is the one step's rate, or the recorder's own (`tau_squares`), or in closed form when
    the rate stood still (both records and the elapsed tau agree on it). It is never guessed for steps that nobody
    recorded.
    """
    sums: list[float | None] = [0.0]
    for before, after in pairwise(reversed(snapshots)):
        part = _eta_squares_between(after, before)
        total = None if part is None or sums[-1] is None else sums[-1] + part
        sums.append(total if total is not None and math.isfinite(total) else None)
    return sums[::-1]


def _eta_squares_between(first: Snapshot, last: Snapshot) -> float | None:
    steps, rate, later_rate = last.step - first.step, _agreed(first.lr), _agreed(last.lr)
    if steps == 1 and rate is not None:
        return 0.0 if first.skipped else rate * rate
    squares = _agreed(first.tau_squares), _agreed(last.tau_squares)
    if squares[0] is not None and squares[1] is not None:
        return squares[1] - squares[0]
    start, stop = _agreed(first.tau), _agreed(last.tau)
    if rate is None or start is None or stop is None or (later_rate is not None and later_rate != rate):
        return None
    return steps * rate * rate if abs(stop - start - steps * rate) <= 1e-9 * abs(stop) else None


def _agreed(groups: tuple[float, ...] | None) -> float | None:
    return groups[0] if groups and len(set(groups)) == 1 else None


# -- gradients k steps apart -----------------------------------------------------------------------------------------


@operand(REFERENCES)
def lag_products(o: Operands) -> Mapping[int, Mapping[str, Column]]:
    """For each lag, the products of a row and the step so many steps on."""
    assert o.number is not None

    def products(cells: Sequence[LagScalars | str]) -> dict[str, Column]:
        missing = [each if isinstance(each, str) else "" for each in cells]
        return {
            name: column((None if isinstance(each, str) else getattr(each, name) for each in cells), missing)
            for name in LAG_PRODUCTS
        }

    return {lag: products(cells[o.number]) for lag, cells in o.source.lags.items()}

"""The columns of compare.csv, and those of layers.csv beside it: a row for each pair of iterates of two runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.metrics import comparison
from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.families import Family
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import Pair, agreed
from trajcheck.scalars.rows import Rows
from trajcheck.scalars.values import PairScalars
from trajcheck.tables.samples import SE
from trajcheck.tables.source import NOT_FINITE

#: What each run is measured for towards the other's last iterate.
SIDE = Family(
    reference_columns=(
        *("ref_dist", "rsi", "eb", "cos", "inst_gap", "gap_resolution"),
        *("convexity_num", "convexity_den", "convexity_ratio"),
    ),
    step_products=("grad_sq",),
    reference_products=("ref_sq", "grad_dot_ref"),
    evaluations=("loss_ref",),
)

#: Those columns of a pair that make sense for one tensor.
LAYER_COLUMNS = ("dist", "init_dist_a", "init_dist_b", "displacement_cos", "update_cos")

BETWEEN = "x_b lies between two records (--interpolate): only what its weights give is known there"


@dataclass(frozen=True)
class Side:
    """One run's columns of references.csv towards the other's last iterate, on its rows."""

    rows: Rows
    columns: Mapping[str, Column]

    def at(self, name: str, places: Sequence[int | None], why_none: str) -> Column:
        """A column on the rows of some places in the trajectory; None: undefined, for the reason `why_none`."""
        index = {row.place: number for number, row in enumerate(self.rows.rows)}
        each = self.columns[name]
        numbers = [None if place is None else index.get(place) for place in places]
        reasons = [
            why_none if place is None else "this step is not among the rows" if number is None else each.reasons[number]
            for place, number in zip(places, numbers, strict=True)
        ]
        return column((None if number is None else each.values[number] for number in numbers), reasons)


@dataclass(frozen=True)
class Line:
    """Losses along the lines of all pairs: `losses` [pairs, samples, points], `missing` the reasons for which a pair
    has none; `s` the points from 0 to 1, `epsilon` that of the replay's dtype, and whether the samples are probe
    batches."""

    losses: np.ndarray
    missing: Sequence[str]
    s: np.ndarray
    epsilon: float
    probe: bool


def no_updates(a: Trajectory, b: Trajectory, rows_a: Rows, rows_b: Rows, pairs: Sequence[Pair]) -> list[str]:
    """Why a pair has no two updates to compare; '' where it has. The rows are all of either run."""
    reasons = []
    for pair in pairs:
        why = rows_a.rows[pair.place_a].no_pair
        other = rows_b.rows[pair.near_b[-1]].no_pair
        reasons.append(f"in {a.path}: {why}" if why else f"in {b.path}: {other}" if other else "")
    return reasons


def pair_columns(
    a: Trajectory,
    b: Trajectory,
    pairs: Sequence[Pair],
    scalars: Sequence[PairScalars],
    no_update: Sequence[str],
    side_a: Side,
    side_b: Side,
    line: Line | None,
    *,
    gap: bool,
) -> dict[str, Column]:
    """All columns of compare.csv after `interpolated`, and tau_a, tau_b, in the order of the contract; with `gap`,
    tau_gap = |tau_a - tau_b|."""
    places_a: list[int | None] = [pair.place_a for pair in pairs]
    places_b = [None if pair.interpolated else pair.place_b for pair in pairs]
    tau_a, tau_b = _tau(a, pairs, lambda pair: (pair.place_a,)), _tau(b, pairs, lambda pair: pair.near_b)
    names = SIDE.reference_columns
    return {
        "tau_a": tau_a,
        "tau_b": tau_b,
        **({"tau_gap": abs(tau_a - tau_b)} if gap else {}),
        "loss_a": side_a.at("loss", places_a, ""),
        "loss_b": side_b.at("loss", places_b, BETWEEN),
        **distance_columns(scalars, no_update),
        **{f"{name}_a": side_a.at(name, places_a, "") for name in names},
        **{f"{name}_b": side_b.at(name, places_b, BETWEEN) for name in names},
        **(_line_columns(line) if line else {}),
    }


def distance_columns(scalars: Sequence[PairScalars], no_update: Sequence[str]) -> dict[str, Column]:
    """What the weights alone give, of all parameters or of one tensor.

    dist = |x_a - x_b| and init_dist_a = |x_a - a_0|, init_dist_b = |x_b - b_0|, each from its own run's first record.
    """

    def scalar(name: str, reasons: Sequence[str] | str = "") -> Column:
        return column((getattr(each, name) for each in scalars), reasons)

    init_sq_a, init_sq_b = scalar("init_sq_a"), scalar("init_sq_b")
    dist, init_dist_a, init_dist_b = scalar("dist_sq").sqrt(), init_sq_a.sqrt(), init_sq_b.sqrt()
    return {
        "dist": dist,
        "init_dist_a": init_dist_a,
        "init_dist_b": init_dist_b,
        "relative_dist": comparison.relative_dist(dist, init_dist_a, init_dist_b),
        "displacement_cos": comparison.displacement_cos(scalar("displacement_dot"), init_sq_a, init_sq_b),
        "update_cos": comparison.update_cos(
            *(scalar(name, no_update) for name in ("step_dot", "step_sq_a", "step_sq_b"))
        ),
    }


def _tau(run: Trajectory, pairs: Sequence[Pair], near: Callable[[Pair], tuple[int, ...]]) -> Column:
    """tau of each pair's point: that of its record, or in between those of two."""
    values, reasons = [], []
    for pair in pairs:
        groups = [run.snapshots[place].tau for place in near(pair)]
        times = [time for each in groups if (time := agreed(each)) is not None]
        known = len(times) == len(groups)
        values.append(times[0] + pair.fraction * (times[-1] - times[0]) if known else None)
        reasons.append("" if known else "no tau was recorded" if not all(groups) else "parameter groups differ in tau")
    return column(values, reasons)


def _line_columns(line: Line) -> dict[str, Column]:
    """barrier and the losses along the line: means over probe batches with their standard errors, or of one sample."""
    finite = np.where(np.isfinite(line.losses), line.losses, np.nan)
    lost = [why or (NOT_FINITE if np.isnan(row).any() else "") for why, row in zip(line.missing, finite, strict=True)]
    height, error = comparison.barrier(finite, line.s)
    count = finite.shape[1]
    one = "" if count > 1 else "one probe batch has no standard error"
    columns = {"barrier": column(height, lost)}
    if line.probe:
        columns["barrier" + SE] = column(error, lost, one)
    columns["barrier_resolution"] = column(comparison.barrier_resolution(finite, line.epsilon), lost)
    for number, s in enumerate(line.s):
        each = finite[:, :, number]
        why = [
            reason or (NOT_FINITE if np.isnan(row).any() else "")
            for reason, row in zip(line.missing, each, strict=True)
        ]
        columns[line_name(s)] = column(each.mean(axis=1), why)
        if line.probe:
            spread = each.std(axis=1, ddof=1) / count**0.5 if count > 1 else np.full(len(each), np.nan)
            columns[line_name(s) + SE] = column(spread, why, one)
    return columns


def line_name(s: float) -> str:
    """The column of the loss at the fraction s of the way from x_a to x_b: line_0, line_0.1, ..., line_1."""
    return f"line_{s:.6g}"

"""The columns of compare.csv, and those of layers.csv beside it: a row for each pair of iterates of two runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.families import Family
from trajcheck.metrics.formulas.other_tables import comparison
from trajcheck.metrics.quantity import COMPARE
from trajcheck.metrics.resolution import Rounding
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import Pair, agreed
from trajcheck.scalars.rows import Rows
from trajcheck.scalars.values import PairScalars
from trajcheck.tables.evaluated import Evaluated
from trajcheck.tables.samples import SE
from trajcheck.tables.source import NOT_FINITE

#: What each run is measured for towards the other's last iterate.
SIDE = Family(reference_columns=tuple(comparison.SIDE))

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
    has none; `s` the points from 0 to 1, `rounding` that of the replay's dtype, and whether the samples are probe
    batches. `second` are the same losses in another precision, NaN on pairs that were not evaluated in it."""

    losses: np.ndarray
    missing: Sequence[str]
    s: np.ndarray
    rounding: Rounding
    probe: bool
    second: np.ndarray


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
    """All columns of compare.csv after `interpolated`, in the order of the contract; with `gap`, tau_gap too."""
    places_a: list[int | None] = [pair.place_a for pair in pairs]
    places_b = [None if pair.interpolated else pair.place_b for pair in pairs]
    operands: dict[str, Column | Mapping[str, Column]] = {
        "tau_a": _tau(a, pairs, lambda pair: (pair.place_a,)),
        "tau_b": _tau(b, pairs, lambda pair: pair.near_b),
        **_products(scalars, no_update),
        **{f"{name}_a": side_a.at(name, places_a, "") for name in ("loss", *comparison.SIDE)},
        **{f"{name}_b": side_b.at(name, places_b, BETWEEN) for name in ("loss", *comparison.SIDE)},
        **(_along_line(line) if line else {}),
    }
    holds = {name for name, holds in (("gap", gap), ("line", line is not None)) if holds}
    return Evaluated(COMPARE, operands.__getitem__).columns(holds)


def tensor_columns(scalars: Sequence[PairScalars], no_update: Sequence[str]) -> dict[str, Column]:
    """Those of compare.csv that make sense for one tensor, from its shares."""
    return Evaluated(COMPARE, _products(scalars, no_update).__getitem__).columns((), of_tensor=True)


def _products(scalars: Sequence[PairScalars], no_update: Sequence[str]) -> dict[str, Column]:
    """The inner products of pairs, of all parameters or of one tensor; `no_update`: why a pair has no two updates."""

    def scalar(name: str, reasons: Sequence[str] | str = "") -> Column:
        return column((getattr(each, name) for each in scalars), reasons)

    return {
        **{name: scalar(name) for name in ("dist_sq", "init_sq_a", "init_sq_b", "displacement_dot")},
        **{name: scalar(name, no_update) for name in ("step_dot", "step_sq_a", "step_sq_b")},
    }


def _tau(run: Trajectory, pairs: Sequence[Pair], near: Callable[[Pair], tuple[int, ...]]) -> Column:
    """tau of each pair's point: that of its record, or in between those of two."""
    values, reasons = [], []
    for pair in pairs:
        snapshots = [run.snapshots[place] for place in near(pair)]
        times = [time for each in snapshots if (time := agreed(each.tau)) is not None]
        known = len(times) == len(snapshots)
        values.append(times[0] + pair.fraction * (times[-1] - times[0]) if known else None)
        reasons.append(next((why for each in snapshots if (why := run.no_tau(each))), ""))
    return column(values, reasons)


def _along_line(line: Line) -> dict[str, Column | Mapping[str, Column]]:
    """The barrier and the losses along the line, by what is added to their names: means over probe batches with their
    standard errors, or of one sample."""
    finite = np.where(np.isfinite(line.losses), line.losses, np.nan)
    lost = [why or (NOT_FINITE if np.isnan(row).any() else "") for why, row in zip(line.missing, finite, strict=True)]
    height, error = comparison.barrier_height(finite, line.s)
    count = finite.shape[1]
    one = "" if count > 1 else "one probe batch has no standard error"
    barrier = {"": column(height, lost), **({SE: column(error, lost, one)} if line.probe else {})}
    losses: dict[str, Column] = {}
    for number, s in enumerate(line.s):
        each = finite[:, :, number]
        why = [
            reason or (NOT_FINITE if np.isnan(row).any() else "")
            for reason, row in zip(line.missing, each, strict=True)
        ]
        losses[f"{s:.6g}"] = column(each.mean(axis=1), why)
        if line.probe:
            spread = each.std(axis=1, ddof=1) / count**0.5 if count > 1 else np.full(len(each), np.nan)
            losses[f"{s:.6g}{SE}"] = column(spread, why, one)
    resolution = column(comparison.barrier_resolution(finite, line.second, line.s, line.rounding), lost)
    return {"barrier": barrier, "barrier_resolution": resolution, "line_": losses}

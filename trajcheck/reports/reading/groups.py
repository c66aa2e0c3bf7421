"""Runs that agree in some fields, drawn as one line: the mean over them and its spread, over step, time or t/T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from trajcheck.errors import UsageError
from trajcheck.reports.quantities.fields import chosen, fields_of
from trajcheck.reports.reading.report import STEPS, Along, SavedReport, Series
from trajcheck.reports.reading.several_reports import MOST, SAMPLES, Together

#: What may stand below the figures.
OVER = {
    "step": STEPS,
    "tau": Along(r"time $\tau$, the sum of learning rates", False),
    "fraction": Along("share of the run's steps, $t/T$", False),
}

#: Up to so many rows that all runs of a group have in common, each is a place of its own; of more, or where the runs
#: have others, values are means over stretches: the most of them, and the rows of the shortest run that one holds.
FEW_ROWS, MOST_STRETCHES, ROWS_OF_STRETCH = 60, 40, 4


class Curve(NamedTuple):
    """`x` [k], `mean` [k] and `spread` [k], the sample standard deviation over the runs; NaN where not all `runs` that
    have any value have one, and `spread` for one run. `of`: how many runs the group has."""

    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    runs: int
    of: int

    @property
    def series(self) -> Series:
        return Series(self.x, self.mean, None)


@dataclass(frozen=True)
class Group:
    """`label` says in what its runs agree; `places` are theirs among the reports."""

    label: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Grouped(Together):
    """All of the reports, in groups; of groups the first are drawn, as many as are told apart."""

    groups: Sequence[Group] = ()
    over: str = "step"

    kind = "grouped"

    @property
    def shown(self) -> int:
        return len(self.reports)

    @property
    def drawn_groups(self) -> Sequence[Group]:
        return self.groups[:MOST]

    @property
    def along(self) -> Along:
        return OVER[self.over]

    def curves(self, table: str, column: str, sample: str | None, **keys: str) -> dict[int, Curve]:
        """By their place, the groups of which a run has a value in a column on a sample; None: on each run's first."""
        lines = (
            self.first_sample(table, column, **keys)
            if sample is None
            else self.lines(table, column, sample=sample, **keys)
        )
        return self.averaged(lines)

    def averaged(self, lines: Mapping[int, Series]) -> dict[int, Curve]:
        """The groups' means of lines by their runs' places."""
        found = {place: (self._axis(place, series), series) for place, series in lines.items()}
        found = {place: (x, series) for place, (x, series) in found.items() if np.isfinite(x[series.defined]).any()}
        curves = {}
        for number, group in enumerate(self.drawn_groups):
            own = [found[place] for place in group.places if place in found]
            if own:
                edges = _edges([x for x, _ in own])
                curves[number] = _curve(own, edges, len(group.places))
        return curves

    def curves_on_samples(self, table: str, column: str, **keys: str) -> dict[str, dict[int, Curve]]:
        found = {sample: self.curves(table, column, sample, **keys) for sample in SAMPLES}
        return {sample: curves for sample, curves in found.items() if curves}

    def _axis(self, place: int, series: Series) -> np.ndarray:
        """Where the rows of a run stand; NaN where that is not known."""
        if self.over == "step":
            return series.steps
        report = self.reports[place]
        if self.over == "fraction":
            last = report.summary["run"].get("last_step")
            return series.steps / last if last else np.full(len(series.steps), np.nan)
        known = self._times[place]
        return np.array([known.get(step, np.nan) for step in series.steps])

    @cached_property
    def _times(self) -> Sequence[Mapping[float, float]]:
        """tau at each step of each run."""
        return [_tau(report) for report in self.reports]

    @property
    def why_no_times(self) -> str | None:
        """Why runs have no place along the axis; None where all have one."""
        if self.over != "tau":
            return None
        without = [label for label, known in zip(self.labels, self._times, strict=True) if not known]
        return f"tau is not known of {', '.join(without)}" if without else None


def _tau(report: SavedReport) -> dict[float, float]:
    if not report.samples:
        return {}
    found = report.series("steps", "tau", sample=report.samples[0])
    return dict(zip(found.steps[found.defined], found.values[found.defined], strict=True))


def grouped(together: Together, fields: Sequence[str], over: str) -> Grouped:
    """The reports in groups, in order of appearance. Raises UsageError for a field that no run has, for a run of which
    there are several reports, and for an unknown axis."""
    if over not in OVER:
        raise UsageError(f"--over {over!r}: expected one of {', '.join(OVER)}.")
    twice = [
        report for place, report in enumerate(together.reports) if report.id in [e.id for e in together.reports[:place]]
    ]
    if twice:
        raise UsageError(
            f"{twice[0].folder}: is another report of the same run, which would count twice. Name one of them."
        )
    values = chosen(fields_of(together.reports), fields)
    found: dict[tuple[object, ...], list[int]] = {}
    for place, value in enumerate(values):
        found.setdefault(value, []).append(place)
    names = [name.removeprefix("user.") for name in fields]
    groups = [Group(_label(names, value), tuple(places)) for value, places in found.items()]
    return Grouped(together.reports, together.labels, together.ref, groups, over)


def _label(names: Sequence[str], values: Sequence[object]) -> str:
    """Words as they are; numbers, true, false and what is missing with the names of their fields."""
    parts = [
        value if isinstance(value, str) else f"no {name}" if value is None else f"{name} {value}"
        for name, value in zip(names, values, strict=True)
    ]
    return ", ".join(parts)


def _edges(axes: Sequence[np.ndarray]) -> np.ndarray | None:
    """The borders of stretches in which means are taken, each holding about as many of all rows, from where all runs
    have begun to where the first ends; None where each of the few rows that all have in common stands for itself."""
    axes = [np.unique(x[np.isfinite(x)]) for x in axes]
    axes = [x for x in axes if len(x)]
    if not axes:
        return None
    if len(axes[0]) <= FEW_ROWS and all(np.array_equal(axes[0], x) for x in axes):
        return None
    low, high = max(x[0] for x in axes), min(x[-1] for x in axes)
    axes = [x[(x >= low) & (x <= high)] if low <= high else x for x in axes]
    count = int(np.clip(min(map(len, axes)) // ROWS_OF_STRETCH, 1, MOST_STRETCHES))
    edges = np.unique(np.quantile(np.concatenate(axes), np.linspace(0, 1, count + 1)))
    return edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1.0])


def _curve(own: Sequence[tuple[np.ndarray, Series]], edges: np.ndarray | None, of: int) -> Curve:
    if edges is None:
        x = np.unique(np.concatenate([each[np.isfinite(each)] for each, _ in own]))
        means = [_at(x, each, series) for each, series in own]
        middle = x
    else:
        means = [_in_stretches(edges, each, series.values, series.defined) for each, series in own]
        middles = np.array([_in_stretches(edges, each, each, series.defined) for each, series in own])
        middle = (edges[1:] + edges[:-1]) / 2
        known = np.isfinite(middles).any(axis=0)
        middle[known] = np.nanmean(middles[:, known], axis=0)
    values = np.array(means)
    whole = np.isfinite(values).all(axis=0)
    mean, spread = np.full(len(middle), np.nan), np.full(len(middle), np.nan)
    mean[whole] = values[:, whole].mean(axis=0)
    if len(values) > 1:
        spread[whole] = values[:, whole].std(axis=0, ddof=1)
    return Curve(middle, mean, spread, len(values), of)


def _at(x: np.ndarray, own: np.ndarray, series: Series) -> np.ndarray:
    found = np.full(len(x), np.nan)
    here = series.defined & np.isfinite(own)
    found[np.searchsorted(x, own[here])] = series.values[here]
    return found


def _in_stretches(edges: np.ndarray, x: np.ndarray, values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """The mean of the values in each stretch, the last of which holds its end; NaN where there is none."""
    here = defined & (x >= edges[0]) & (x <= edges[-1])
    place = np.clip(np.searchsorted(edges, x[here], side="right") - 1, 0, len(edges) - 2)
    sums = np.bincount(place, values[here], len(edges) - 1)
    counts = np.bincount(place, minlength=len(edges) - 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

"""What figures of several runs have in common: a colour and a mark a run, one sample a panel, and who is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import FEW, alone, finish, panels, scale, title
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.style import COLOURS, GREY, HEIGHT, short
from trajcheck.reports.reading.report import Series
from trajcheck.reports.reading.several_reports import LONGEST, Together

#: Runs are told apart by colour and by mark, so that a copy in grey can be read too.
RUN_MARKS = ("o", "s", "^", "D", "v", "P", "X")

#: Marks on a line of more than FEW values.
MARKED = 12

#: Where single batches make a line of more than FEW values restless, a running mean over this share of its rows.
WINDOW = 1 / 40

SAMPLE_TITLES = {
    "own": "own sample: each step's batch",
    "previous": "previous sample, from which $x_t$ was made: biased",
    "full": "whole data set",
    "probe": "probe batches",
}


@dataclass(frozen=True)
class Panel:
    """`lines` by the run's place; `noisy`: of single batches, so that long lines are drawn as running means too;
    `dotted`: the rows on which a run's line is dotted."""

    title: str
    label: str
    lines: Mapping[int, Series]
    noisy: bool = False
    dotted: Mapping[int, np.ndarray] = field(default_factory=dict)


def figure_of(
    together: Together,
    parts: Sequence[Panel],
    draw: Callable[[Axes, Panel], None] | None = None,
    dress: Callable[[Axes, Panel], Sequence[Line2D | Patch]] = lambda ax, panel: (),
) -> Figure:
    """Panels above one another, a line a run in each. `draw` draws a panel's lines where a fitting scale and a line
    each are not all there is to it; `dress` adds to a panel that is drawn, and returns entries of the legend."""
    figure, axes = panels(len(parts), height=3.2 if len(parts) == 1 else HEIGHT)
    extra: dict[str, Line2D | Patch] = {}
    for ax, panel in zip(axes[:, 0], parts, strict=True):
        (draw or _scaled)(ax, panel)
        for each in dress(ax, panel):
            extra.setdefault(str(each.get_label()), each)
        missing = together.shown - len(panel.lines)
        title(ax, panel.title + (f" ({len(panel.lines)} of {together.shown} runs)" if missing else ""))
        finish(ax, panel.label, steps=panel is parts[-1])
    if any(smoothed(panel, series) for panel in parts for series in panel.lines.values()):
        extra["mean"] = entry("bold: running mean over 1/40 of the rows", GREY, linewidth=1.5)
    drawn = {place for panel in parts for place in panel.lines}
    legend(figure, [*run_entries(together, drawn), *extra.values(), *without(together, drawn)])
    return figure


def _scaled(ax: Axes, panel: Panel) -> None:
    scale(ax, panel.lines.values())
    draw_lines(ax, panel)


def draw_lines(ax: Axes, panel: Panel) -> None:
    for place, series in panel.lines.items():
        run_line(ax, series, place, smoothed(panel, series), panel.dotted.get(place))


def smoothed(panel: Panel, series: Series) -> bool:
    return panel.noisy and int(series.defined.sum()) > FEW


def run_line(ax: Axes, series: Series, place: int, smooth: bool = False, dotted: np.ndarray | None = None) -> None:
    """A run's line, which breaks where it is undefined, and is dotted on the rows `dotted`; standard errors are a band.

    Few values, and values without a neighbour, are all marked; of many some are, in other places for other runs."""
    steps, values, here = series.steps, series.values, series.defined
    dots = np.zeros(len(here), dtype=bool) if dotted is None else dotted
    color = COLOURS[place]
    if smooth:
        ax.plot(steps, values, color=color, linewidth=0.4, alpha=0.25, zorder=2)
        values = window_mean(series)
    marked = here if here.sum() <= FEW else some(here, place)
    for style, rows in (("-", here & ~dots), (":", here & dots)):
        part = np.where(rows, values, np.nan)
        if rows.any():
            ax.plot(steps, part, linestyle=style, color=color, linewidth=1.5 if smooth else 1.1, zorder=3)
        marked = marked | alone(rows)
    size = 3.4 if here.sum() <= FEW and not alone(here)[here].all() else 4.5
    ax.plot(steps[marked], values[marked], marker=RUN_MARKS[place], zorder=4, **_mark(color, size))
    if series.errors is not None and not smooth:
        low, high = values - series.errors, values + series.errors
        ax.fill_between(steps, low, high, where=here, color=color, alpha=0.15, linewidth=0)


def some(here: np.ndarray, place: int) -> np.ndarray:
    """About MARKED of the places that hold, evenly spaced, shifted by the run's place."""
    found = np.flatnonzero(here)
    chosen = np.zeros(len(here), dtype=bool)
    every = max(1, len(found) // MARKED)
    chosen[found[(place * every) // len(RUN_MARKS) :: every]] = True
    return chosen


def window_mean(series: Series) -> np.ndarray:
    """The mean over a window of rows around each, of the values that are defined; NaN where the row's own is not. At
    the ends the window is cut off."""
    here = series.defined
    half = max(2, round(len(here) * WINDOW / 2))
    sums = np.concatenate([[0.0], np.cumsum(np.where(here, series.values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(here)])
    rows = np.arange(len(here))
    low, high = np.maximum(rows - half, 0), np.minimum(rows + half + 1, len(here))
    return np.where(here, (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1), np.nan)


def run_entries(together: Together, drawn: set[int]) -> list[Line2D | Patch]:
    """Entries of a legend for the runs that are drawn."""
    return [
        entry(name(together, place), COLOURS[place], marker=RUN_MARKS[place], markersize=4, markeredgewidth=0)
        for place in sorted(drawn)
    ]


def without(together: Together, drawn: set[int]) -> list[Line2D | Patch]:
    """Entries that say which runs have no value, and how many found no room."""
    missing = [
        entry(f"{name(together, place)}: no value", GREY, "none")
        for place in range(together.shown)
        if place not in drawn
    ]
    return [*missing, *not_drawn(together.shown, len(together.reports), "runs")]


def name(together: Together, place: int) -> str:
    return short(together.labels[place], LONGEST)


def towards(together: Together) -> str:
    return f"towards {short(together.ref)}"


def _mark(color: str, size: float) -> dict[str, Any]:
    return {"markersize": size, "linestyle": "none", "color": color, "markeredgecolor": "white", "markeredgewidth": 0.4}

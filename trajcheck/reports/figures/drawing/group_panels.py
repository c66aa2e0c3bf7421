"""What figures of groups have in common: a line a group, its spread as a band, one sample a panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import FEW, finish, panels, scale, title
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.run_panels import RUN_MARKS, SAMPLE_TITLES
from trajcheck.reports.figures.drawing.style import COLOURS, GREY, HEIGHT, short
from trajcheck.reports.figures.picture import NothingToDraw
from trajcheck.reports.reading.groups import Curve, Grouped
from trajcheck.reports.reading.report import Series

SPREAD = (
    "A line is the mean over the runs of a group, and the band around it one sample standard deviation over them, on "
    "either side; of rows that the runs do not share, or of many, means over stretches are taken first. A line stops "
    "where not all of its runs have a value."
)


@dataclass(frozen=True)
class GroupPanel:
    """`curves` by the group's place; `levels` are drawn in grey."""

    title: str
    label: str
    curves: Mapping[int, Curve]
    levels: tuple[float, ...] = ()
    linear_up_to: float | None = None


def sample_panels(
    grouped: Grouped, table: str, column: str, label: str, words: Callable[[str], str], levels: tuple[float, ...] = ()
) -> list[GroupPanel]:
    """A panel a sample on which a column has values."""
    keys = grouped.towards_ref if table == "references" else {}
    found = grouped.curves_on_samples(table, column, **keys)
    return [GroupPanel(words(SAMPLE_TITLES[sample]), label, curves, levels) for sample, curves in found.items()]


def figure_of_groups(grouped: Grouped, parts: Sequence[GroupPanel], *columns: str) -> Figure:
    """Panels above one another. Raises NothingToDraw, naming why the columns are empty."""
    if not parts:
        raise NothingToDraw(grouped.why_no_times or grouped.why_empty(*columns))
    figure, axes = panels(len(parts), height=3.2 if len(parts) == 1 else HEIGHT)
    for ax, part in zip(axes[:, 0], parts, strict=True):
        draw_panel(ax, part)
        title(ax, part.title)
        finish(ax, part.label, steps=part is parts[-1], along=grouped.along)
    entries = []
    for number, group in enumerate(grouped.drawn_groups):
        curves = [part.curves[number] for part in parts if number in part.curves]
        style: dict[str, Any] = {"marker": RUN_MARKS[number], "markersize": 4, "markeredgewidth": 0}
        if curves:
            entries.append(entry(f"{short(group.label)} ({_count(curves)})", COLOURS[number], **style))
        else:
            entries.append(entry(f"{short(group.label)}: no value", GREY, "none"))
    legend(figure, [*entries, *not_drawn(len(grouped.drawn_groups), len(grouped.groups), "groups")])
    return figure


def _count(curves: Sequence[Curve]) -> str:
    fewest, of = min(curve.runs for curve in curves), curves[0].of
    return f"n = {fewest}" if fewest == of else f"n = {fewest} of {of}"


def _foot(curve: Curve) -> Series:
    """The lower edge of the band: where it is not positive, an axis that has no room for it would tear the band."""
    return Series(curve.x, curve.mean - curve.spread, None)


def draw_panel(ax: Axes, part: GroupPanel) -> None:
    drawn = [series for curve in part.curves.values() for series in (curve.series, _foot(curve))]
    scale(ax, drawn, linear_up_to=part.linear_up_to)
    for level in part.levels:
        ax.axhline(level, color=GREY, linewidth=0.8, zorder=1)
    for number, (x, mean, spread, *_) in part.curves.items():
        color, here = COLOURS[number], np.isfinite(mean)
        ax.plot(x, mean, color=color, zorder=3)
        every = max(1, int(here.sum()) // 12) if here.sum() > FEW else 1
        chosen = np.flatnonzero(here)[number % every :: every]
        mark: dict[str, Any] = {
            "marker": RUN_MARKS[number],
            "markersize": 3.4,
            "linestyle": "none",
            "markeredgewidth": 0,
        }
        ax.plot(x[chosen], mean[chosen], color=color, zorder=4, **mark)
        wide = here & np.isfinite(spread)
        if wide.any():
            ax.fill_between(x, mean - spread, mean + spread, where=wide, color=color, alpha=0.18, linewidth=0)

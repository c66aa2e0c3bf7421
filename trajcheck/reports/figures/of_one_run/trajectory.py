"""The trajectory in the plane of its first two principal components, with the references in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.steps_in_colours import STEP_COLOURS
from trajcheck.reports.figures.drawing.style import BLACK, COLOURS, GREY, WIDTH, short, told_apart
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport, Series

_MARKS = ("*", "X", "P", "D", "^", "s", "v")


def _draw(report: SavedReport) -> Figure:
    facts = report.summary.get("trajectory")
    if facts is None or "trajectory" not in report.tables:
        raise NothingToDraw("the plane of principal components was not asked for: give --pca N")
    first, second = (report.series("trajectory", f"component_{k}") for k in (1, 2))
    if not second:
        raise NothingToDraw(report.why_empty("component_1" if not first else "component_2"))
    figure = Figure(figsize=(WIDTH, 4.9), layout="constrained")
    ax = figure.subplots()
    path = _path(ax, first, second)
    entries = [*_ends(ax, first, second), *_references(ax, facts["references"])]
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.08)
    for axis, number, share in zip((ax.xaxis, ax.yaxis), (1, 2), facts["explained"], strict=True):
        axis.set_label_text(f"component {number}: {100 * share:.3g}% of the variance [length]")
    figure.colorbar(path, ax=ax, pad=0.01, aspect=30, label="step $t$")
    legend(figure, entries)
    return figure


def _path(ax: Axes, first: Series, second: Series) -> LineCollection:
    """The chosen iterates as points, coloured by step, and lines between them."""
    corners = np.column_stack([first.values, second.values])
    path = LineCollection(list(np.stack([corners[:-1], corners[1:]], axis=1)), cmap=STEP_COLOURS, linewidths=1.2)
    path.set_array((first.steps[:-1] + first.steps[1:]) / 2)
    path.set_clim(first.steps[0], first.steps[-1])
    ax.add_collection(path)
    ax.scatter(first.values, second.values, c=first.steps, cmap=STEP_COLOURS, s=9, zorder=3)
    return path


def _ends(ax: Axes, first: Series, second: Series) -> list[Line2D | Patch]:
    """Rings around the first and the last iterate."""
    entries: list[Line2D | Patch] = []
    for place, color, label in ((0, GREY, "first iterate"), (-1, BLACK, "last iterate")):
        ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 9, "markeredgecolor": color}
        ax.plot(first.values[place], second.values[place], linestyle="none", zorder=5, **ring)
        entries.append(entry(f"{label}, step {first.steps[place]:.0f}", color, "none", **ring))
    return entries


def _references(ax: Axes, points: Mapping[str, Mapping[str, float]]) -> list[Line2D | Patch]:
    """A mark for each reference, with its distance from the plane in the legend."""
    entries: list[Line2D | Patch] = []
    shown = told_apart(list(points))
    for spec, color, mark in zip(shown, COLOURS, _MARKS, strict=False):
        point = points[spec]
        look: dict[str, Any] = {"marker": mark, "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.6}
        ax.plot(point["component_1"], point["component_2"], color=color, linestyle="none", zorder=6, **look)
        entries.append(entry(f"{short(spec, 26)}, {point['off_plane']:.2g} off the plane", color, "none", **look))
    return [*entries, *not_drawn(len(shown), len(points))]


PICTURE = Picture(
    "trajectory",
    "The trajectory in the plane of its principal components",
    "The first two principal components of evenly spaced iterates (x_t minus their mean), from their Gram matrix; "
    "references are projected onto the same plane, and the legend says how far from it they lie. Two principal "
    "components explain much of any path: of a random walk in many dimensions about 61% and 15%, and there the plane "
    "shows a parabola. A smooth curve here is therefore no sign of an easy landscape.",
    _draw,
    place=100,
)

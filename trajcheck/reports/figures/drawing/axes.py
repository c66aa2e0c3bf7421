"""Drawing columns honestly: gaps stay gaps, single points are marked, and a scale fits what it shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trajcheck.reports.figures.drawing.decades import SpacedDecades
from trajcheck.reports.figures.drawing.style import GREY, HEIGHT, MARKS, WIDTH
from trajcheck.reports.reading.report import STEPS, Along, Series

#: Up to so many values each is marked, so that nobody takes the line between two for measured.
FEW = 60

#: Quotients of values from which a scale is logarithmic: of the largest and the smallest of positive ones; of the
#: largest and the median of absolute ones where signs differ.
WIDE, WIDE_SIGNED = 50.0, 100.0

#: Times its linear part that the largest value is, from which an axis with a given linear part leaves it.
WIDE_LINEAR = 5.0

#: Share of |den| in which a symmetric logarithmic scale is linear, of the median of absolute values.
LINEAR = 0.1

#: The most decades of a symmetric logarithmic scale on either side.
DECADES = 12


def panels(rows: int, columns: int = 1, height: float = HEIGHT, **more: Any) -> tuple[Figure, np.ndarray]:
    """A figure of panels with a common axis of steps, and its axes [rows, columns]."""
    figure = Figure(figsize=(WIDTH, height * rows + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, sharex=True, squeeze=False, **more)


def grid(count: int, height: float = HEIGHT) -> tuple[Figure, list[Axes], int]:
    """A figure of `count` equal panels with common axes, and how many stand in a row."""
    across = side_by_side(count)
    rows = -(-count // across)
    figure = Figure(figsize=(WIDTH, height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False).flat)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count], across


def stacked(count: int, height: float, upper: float = 1.0) -> tuple[Figure, list[tuple[Axes, Axes]], int]:
    """A figure of `count` pairs of panels with a common axis of steps, its (upper, lower) axes, and how many pairs
    stand in a row. `upper` is the height of an upper panel over that of a lower one."""
    across = side_by_side(count)
    rows = -(-count // across)
    figure = Figure(figsize=(WIDTH, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(2 * rows, across, sharex=True, squeeze=False, height_ratios=[upper, 1] * rows)
    pairs = list(zip(axes[0::2].flat, axes[1::2].flat, strict=True))
    for ax in (ax for pair in pairs[count:] for ax in pair):
        ax.set_visible(False)
    return figure, pairs[:count], across


def side_by_side(count: int) -> int:
    """How many of some small panels stand in a row."""
    return 2 if count in (2, 4) else min(3, count)


def line(ax: Axes, series: Series, color: str, style: str = "-", **more: Any) -> None:
    """A column as a line that breaks where it is undefined; values without a neighbour, and few values, as points.

    Standard errors are a band where both neighbours have one, and bars at single points.
    """
    steps, values = series.steps, series.values
    here = series.defined
    if not here.any():
        return
    ax.plot(steps, values, linestyle=style, color=color, **more)
    few = here.sum() <= few_of(ax)
    marked = here if few else here & alone(here)
    size = 3.0 if few or alone(here)[here].all() else 1.6
    hollow: dict[str, Any] = {} if style == "-" else {"markerfacecolor": "white", "markeredgewidth": 0.8}
    mark: dict[str, Any] = {"marker": MARKS[style], "markersize": size, "linestyle": "none", "color": color, **hollow}
    ax.plot(steps[marked], values[marked], zorder=more.get("zorder", 2), **mark)
    if series.errors is not None and np.isfinite(series.errors).any():
        low, high = values - series.errors, values + series.errors
        ax.fill_between(steps, low, high, where=here, color=color, alpha=0.18, linewidth=0)
        single = here & alone(here) & (series.errors >= 0) & np.isfinite(series.errors)
        ax.errorbar(steps[single], values[single], series.errors[single], fmt="none", ecolor=color, elinewidth=0.7)


def few_of(ax: Axes) -> int:
    """FEW, shared out to panels that stand side by side."""
    grid = ax.get_gridspec()
    return FEW if grid is None else FEW // grid.ncols


def alone(here: np.ndarray) -> np.ndarray:
    """Where neither neighbour is defined."""
    before, after = np.concatenate([[False], here[:-1]]), np.concatenate([here[1:], [False]])
    return here & ~before & ~after


def shade(ax: Axes, steps: np.ndarray, mask: np.ndarray, low: float = 0.0, high: float = 1.0, **style: Any) -> None:
    """Shade the stretches of rows on which `mask` holds, each up to half way to the next row, from `low` to `high`, in
    shares of the panel's height. A stretch of one row of thousands is a hair's breadth, and is seen."""
    if mask.any():
        borders = np.repeat(halfway(steps), 2)[1:-1]
        style = {"linewidth": 0.4, "edgecolor": style.get("color", style.get("facecolor")), **style}
        style.pop("facecolor" if "color" in style else "", None)
        ax.fill_between(borders, low, high, where=np.repeat(mask, 2), transform=ax.get_xaxis_transform(), **style)


def halfway(steps: np.ndarray) -> np.ndarray:
    """The n + 1 borders of n rows: half way between two, and as far outside the first and the last."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0] - (middle[0] - steps[0])], middle, [steps[-1] + (steps[-1] - middle[-1])]])


def scale(ax: Axes, drawn: Iterable[Series], linear_up_to: float | None = None) -> None:
    """A logarithmic axis for positive values over a wide range, a symmetric logarithmic one for values of both signs
    of which few are far larger than the others, else a linear one.

    With `linear_up_to` it is never a plain logarithmic one, and leaves its linear part there; else at a share of the
    median.
    """
    parts = [series.values[series.defined] for series in drawn]
    values = np.concatenate(parts) if parts else np.empty(0)
    nonzero = np.abs(values[values != 0])
    if not len(nonzero):
        return
    smallest, middle, largest = np.log10([nonzero.min(), np.median(nonzero), nonzero.max()])
    if (values >= 0).all() and linear_up_to is None:
        if largest - smallest > np.log10(WIDE):
            ax.set_yscale("log", nonpositive="mask")
            if len(nonzero) < len(values):
                _note(ax, "0 lies off the scale")
    elif linear_up_to:
        if largest > np.log10(WIDE_LINEAR * linear_up_to):
            _symmetric(ax, linear_up_to, 1.0)
    elif largest - middle > np.log10(WIDE_SIGNED):
        _symmetric(ax, 10 ** max(middle + np.log10(LINEAR), largest - DECADES))


def _symmetric(ax: Axes, linear_up_to: float, decades: float = 0.5) -> None:
    """The linear part takes the room of so many decades on either side."""
    ax.set_yscale("symlog", linthresh=linear_up_to, linscale=decades)
    ax.yaxis.set_major_locator(SpacedDecades(linear_up_to))
    _note(ax, f"linear within ±{linear_up_to:.2g}")


def _note(ax: Axes, text: str) -> None:
    ax.text(0.995, 1.01, text, transform=ax.transAxes, ha="right", fontsize=7, color=GREY)


def zero(ax: Axes) -> None:
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)


def title(ax: Axes, text: str) -> None:
    """At the left, above the note on the scale, if there is one. Call it after `scale`."""
    ax.set_title(text, loc="left", pad=11 if ax.texts else 4)


def finish(ax: Axes, label: str, steps: bool = True, across: int = 1, along: Along = STEPS) -> None:
    """Name the axes; of steps whole ones only, fewer where panels stand `across`."""
    ax.set_ylabel(label)
    if steps:
        ax.set_xlabel(along.words)
        ax.tick_params(labelbottom=True)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=max(3, 8 - 2 * across), integer=along.whole))

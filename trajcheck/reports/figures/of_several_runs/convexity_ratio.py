"""Several runs: the convexity ratio towards each one's x* (TZC)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trajcheck.reports.figures.drawing.axes import scale
from trajcheck.reports.figures.drawing.legends import entry
from trajcheck.reports.figures.drawing.ratio_panel import LABEL, limits, ratios_of_several
from trajcheck.reports.figures.drawing.run_panels import Panel, draw_lines, figure_of
from trajcheck.reports.figures.drawing.style import GREY
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.several_reports import Together


def _draw(together: Together) -> Figure:
    parts = []
    for words, lines, dens in ratios_of_several(together):
        negative = {place: den.values < 0 for place, den in dens.items()}
        parts.append(Panel(words, LABEL, lines, dotted=negative))
    if not parts:
        raise NothingToDraw(together.why_empty("convexity_ratio"))
    return figure_of(together, parts, _lines, _turned)


def _lines(ax: Axes, panel: Panel) -> None:
    scale(ax, panel.lines.values(), linear_up_to=2.0)
    draw_lines(ax, panel)
    ax.set_ylim(*limits(ax, panel.lines.values()))
    for level in (0.0, 1.0):
        ax.axhline(level, color=GREY, linewidth=0.8, zorder=1)


def _turned(ax: Axes, panel: Panel) -> list[Line2D]:
    if any((panel.lines[place].defined & rows).any() for place, rows in panel.dotted.items()):
        return [entry("dotted: den < 0, convex means ratio ≤ 1", GREY, ":")]
    return []


PICTURE = Picture(
    "convexity_ratio",
    "Convexity ratio",
    "num/den towards x*, both summed from each run's start over its rows with their weights, one sample to a panel; of "
    "own samples towards a later iterate of the run without the steps' own terms, where the headline's is, and runs "
    "whose ratio holds them have a panel of their own. "
    "Where den > 0, convex functions give at least 1, weakly quasi-convex ones 0 to 1, below 0 is strongly "
    "non-convex, and a saddle can give 2. Lines are dotted where den < 0 and the inequality turns round, and break "
    "where |den| is below its resolution (on probe batches: its standard error).",
    _draw,
    place=20,
    kinds=("together",),
)

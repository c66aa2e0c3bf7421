"""The last-iterate bound along the run, term by term, over the gap that was measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, grid, line, scale, title
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.style import BLACK, BLUE, GREEN, ORANGE, VERMILLION, short
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport, Series

#: The most panels, one a reference.
MOST = 6

_TERMS = {
    "bound": ("the bound", BLACK, "-"),
    "distance_term": (r"$D^2/2S$: the distance", BLUE, "-"),
    "gradient_term": (r"$\sum\eta^2|g|^2/2S$: gradients", GREEN, "--"),
    "last_term": ("the last iterate's term", ORANGE, "-."),
}


def _draw(report: SavedReport) -> Figure:
    every = [ref for ref in report.keys("schedule", "ref") if any(_terms(report, ref).values())]
    if not every:
        raise NothingToDraw(report.why_empty("bound", "last_term"))
    wanted = every[:MOST]
    figure, axes, across = grid(len(wanted))
    entries: dict[str, Line2D | Patch] = {}
    for number, (ref, ax) in enumerate(zip(wanted, axes, strict=True)):
        for each in _panel(ax, report, ref):
            entries.setdefault(str(each.get_label()), each)
        title(ax, f"towards {short(ref, 54 // across)}")
        finish(ax, "[loss]" if number % across == 0 else "", across=across)
    legend(figure, [*entries.values(), *not_drawn(len(wanted), len(every))], columns=2)
    return figure


def _terms(report: SavedReport, ref: str) -> dict[str, Series]:
    """Those of one reference: they are alike on every sample."""
    sample = report.keys("schedule", "sample")[0]
    return {name: report.series("schedule", name, ref=ref, sample=sample) for name in _TERMS}


def _gaps(report: SavedReport, ref: str) -> Iterator[tuple[str, Series]]:
    for sample in report.keys("schedule", "sample"):
        if gap := report.series("schedule", "loss_gap", ref=ref, sample=sample):
            yield sample, gap


def _panel(ax: Axes, report: SavedReport, ref: str) -> Iterator[Line2D | Patch]:
    terms = {name: each for name, each in _terms(report, ref).items() if each}
    gaps = dict(_gaps(report, ref))
    scale(ax, [*terms.values(), *gaps.values()])
    for name, series in terms.items():
        words, color, style = _TERMS[name]
        line(ax, series, color, style)
        yield entry(words, color, style)
    for sample, gap in gaps.items():
        style = {"probe": "--", "full": "-."}.get(sample, ":")
        line(ax, gap, VERMILLION, style)
        if gap.errors is not None:
            low, high = gap.values - gap.errors, gap.values + gap.errors
            ax.fill_between(
                gap.steps, low, high, where=np.isfinite(gap.errors).tolist(), color=VERMILLION, alpha=0.2, linewidth=0
            )
        yield entry(f"$f(x_T)-f(x^*)$ on {sample}", VERMILLION, style)


PICTURE = Picture(
    "schedule",
    "Last-iterate bound of the schedule",
    "What f(x_T) − f(x*) is at most for subgradient steps on a convex f, at some of the steps T, in its three terms, "
    "and the gap that was measured (own: on one batch a step). Whether the steps are the theorem's, summary.json says.",
    _draw,
    place=57,
    on_demand=True,
)

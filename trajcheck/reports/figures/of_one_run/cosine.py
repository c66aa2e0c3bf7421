"""The figure to show first: does the gradient point away from x*, beyond what noise gives, and was it convex so far?"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import FEW, finish, line, stacked, title, zero
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn, patch
from trajcheck.reports.figures.drawing.ratio_panel import LABEL, draw_ratio, ratio_entries, ratios
from trajcheck.reports.figures.drawing.style import BLUE, GREEN, ORANGE, PALE, PURPLE, SKY, short
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport, Series

#: The most references that have panels of their own.
MOST = 6

#: What is drawn of the cosine: (sample, column), label, colour, line style.
_LINES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("own", "cos", "cos, own sample", {"color": SKY, "style": "-", "zorder": 2}),
    ("own", "cos_skip", "cos_skip, without the step's own term", {"color": BLUE, "style": "-", "zorder": 3}),
    ("previous", "cos", "cos, previous sample (biased)", {"color": PURPLE, "style": ":", "zorder": 2}),
    ("full", "cos", "cos, whole data set", {"color": GREEN, "style": "-.", "zorder": 4}),
    ("probe", "cos", "cos, probe batches ± standard error", {"color": ORANGE, "style": "--", "zorder": 5}),
)


def _draw(report: SavedReport) -> Figure:
    every = [ref for ref in report.references if _cosines(report, ref)]
    if not every:
        raise NothingToDraw(report.why_empty("cos"))
    wanted = every[:MOST]
    figure, pairs, across = stacked(len(wanted), height=4.6, upper=1.5)
    entries: dict[str, Line2D | Patch] = {}
    for number, (ref, (upper, lower)) in enumerate(zip(wanted, pairs, strict=True)):
        left = number % across == 0
        for each in (*_draw_cosine(upper, report, ref), *_draw_ratio(lower, report, ref)):
            entries.setdefault(str(each.get_label()), each)
        title(upper, f"towards {short(ref, 54 // across)}")
        finish(upper, r"$\cos(g_t,\ x_t-x^*)$" if left else "", steps=False)
        finish(lower, LABEL if left else "", across=across)
    legend(figure, [*entries.values(), *not_drawn(len(wanted), len(every))], columns=2)
    return figure


def _cosines(report: SavedReport, ref: str) -> dict[int, Series]:
    """The lines of one reference that have a value, by their place in _LINES."""
    found = {}
    for place, (sample, column, *_) in enumerate(_LINES):
        series = report.series("references", column, ref=ref, sample=sample)
        if series:
            found[place] = series
    return found


def _draw_cosine(ax: Axes, report: SavedReport, ref: str) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = []
    zero(ax)
    lines = _cosines(report, ref)
    for place, series in lines.items():
        _, _, label, style = _LINES[place]
        line(ax, series, linewidth=0.7 if len(series.steps) > 5 * FEW else 1.1, **style)
        entries.append(entry(label, style["color"], style["style"]))
    floor = report.series("references", "cos_floor", ref=ref, sample="own")
    if floor:
        ax.fill_between(floor.steps, np.zeros(len(floor.steps)), floor.values, color=PALE, linewidth=0, zorder=0)
        entries.append(patch("0 to cos_floor: own-sample cos of pure noise", facecolor=PALE))
    return entries


def _draw_ratio(ax: Axes, report: SavedReport, ref: str) -> list[Line2D | Patch]:
    drawn = {}
    for sample in ("probe", "full", "own", "previous"):
        ratio, _, den = ratios(report, "references", ref=ref, sample=sample)
        if den:
            drawn[sample] = ratio, den
    if not drawn:
        ax.text(0.5, 0.5, "no losses: no ratio", transform=ax.transAxes, ha="center", va="center")
        ax.set_yticks([])
        return []
    draw_ratio(ax, drawn)
    return ratio_entries(list(drawn.values()))


PICTURE = Picture(
    "cosine",
    "Towards each reference: cosine and convexity ratio",
    "Above, the cosine between the gradient and x_t − x*; below 0 a small step against the gradient leads away from "
    "x*. Towards a later iterate of the same run the own-sample cosine contains the step's own noise; grey is what "
    "noise alone would give (known for plain SGD). Beneath, the convexity ratio summed from the start, per sample as "
    "elsewhere (solid: own, dashed: probe, with standard errors), with stretches shaded where its denominator is "
    "unresolved.",
    _draw,
    place=10,
)

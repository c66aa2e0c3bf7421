"""The convexity ratio towards every reference and the previous iterate, with its numerator and denominator (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, scale, stacked, title, zero
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.ratio_panel import (
    LABEL,
    draw_ratio,
    is_free,
    ratio_entries,
    ratios,
    sample_entries,
)
from trajcheck.reports.figures.drawing.style import BLUE, DASHES, VERMILLION, short
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.quantities.catalogue import PREVIOUS
from trajcheck.reports.reading.report import SavedReport

#: The most points y that have panels of their own.
MOST = 6


def _draw(report: SavedReport) -> Figure:
    points = {}
    for name, table, keys in (
        *((ref, "references", {"ref": ref}) for ref in report.references),
        (PREVIOUS, "steps", {}),
    ):
        found = {sample: ratios(report, table, sample=sample, **keys) for sample in report.samples}
        found = {sample: each for sample, each in found.items() if each[2]}
        if found:
            points[name] = found
    if not points:
        raise NothingToDraw(report.why_empty("convexity_den"))
    refs = [name for name in points if name != PREVIOUS]
    drawn_refs = refs[: MOST - (PREVIOUS in points)]
    shown = [*drawn_refs, *(name for name in points if name == PREVIOUS)]
    figure, pairs, across = stacked(len(shown), height=4.2)
    every: list[tuple] = []
    for number, (name, (upper, lower)) in enumerate(zip(shown, pairs, strict=True)):
        found, left = points[name], number % across == 0
        drawn = {sample: (ratio, den) for sample, (ratio, _, den) in found.items()}
        every += drawn.values()
        draw_ratio(upper, drawn)
        scale(lower, [series for _, num, den in found.values() for series in (num, den)])
        zero(lower)
        for sample, (_, num, den) in found.items():
            line(lower, num, BLUE, DASHES[sample])
            line(lower, den, VERMILLION, DASHES[sample])
        title(upper, "$y=x_{t-1}$" if name == PREVIOUS else f"y = {short(name, 54 // across)}")
        finish(upper, LABEL if left else "", steps=False)
        finish(lower, "num, den [loss]" if left else "", across=across)
    free = any(is_free(report, sample, name) for name in shown for sample in points[name])
    entries: list[Line2D | Patch] = [
        entry(r"num $=\sum\langle g_i,x_i-y\rangle$", BLUE),
        *([Line2D([], [], linestyle="", label="own, later $y$: $x_s$ for $x_i$")] if free else []),
        entry(r"den $=\sum f(x_i)-f(y)$", VERMILLION),
        *sample_entries(list(dict.fromkeys(sample for each in points.values() for sample in each))),
        *ratio_entries(every),
        *not_drawn(len(drawn_refs), len(refs)),
    ]
    legend(figure, entries)
    return figure


PICTURE = Picture(
    "convexity_ratio",
    "Convexity ratio, numerator and denominator",
    "num/den, both summed from the start over the rows with their weights. Where den > 0: convex functions give at "
    "least 1, weakly quasi-convex ones 0 to 1, below 0 is strongly non-convex, and a saddle can give 2. Where den < 0 "
    "the inequality turns round. The strip at the left edge marks the bands; there is no ratio where |den| is below "
    "its resolution (on probe batches: its standard error; over thinned records: two errors for the choice of rows). "
    "On own samples towards a later iterate x_s, s a record after t, stands for x_t in num: what each "
    "step gained is left out too, and convex functions may give less than 1.",
    _draw,
    place=20,
)

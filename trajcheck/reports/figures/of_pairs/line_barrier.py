"""The loss on the straight line between two runs (linear mode connectivity)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, title, zero
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.style import COLOURS, GREY, HEIGHT, WIDTH, short, told_apart
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport


def _draw(report: SavedReport) -> Figure:
    runs = told_apart(report.others)
    found = {
        number: series for number, run in enumerate(runs) if (series := report.drawn("compare", "barrier", run_b=run))
    }
    if not found:
        raise NothingToDraw(report.why_empty("barrier"))
    resolution = {n: report.drawn("compare", "barrier_resolution", run_b=runs[n]).values for n in found}
    columns = map(str, report.tables["compare"])
    names = [name for name in columns if name.startswith("line_") and not name.endswith("_se")]
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    zero(left)
    for number, series in found.items():
        line(left, series, COLOURS[number], zorder=3)
        with np.errstate(invalid="ignore"):
            below = series.values <= resolution[number]
        left.plot(series.steps[below], series.values[below], "|", color=GREY, markersize=5, zorder=2)
        row = int(np.flatnonzero(series.defined)[-1])
        profile = np.array([report.drawn("compare", name, run_b=runs[number]).values[row] for name in names])
        right.plot([float(name[5:]) for name in names], profile, "o-", markersize=3, color=COLOURS[number])
    finish(left, "barrier [loss]", along=report.along)
    finish(right, "loss", steps=False)
    right.set_xlabel("from $x_a$ (0) to $x_b$ (1)")
    title(right, "at the last pair that has it")
    entries: list[Line2D | Patch] = [entry(f"b: {short(runs[number])}", COLOURS[number]) for number in found]
    entries.append(entry("at or below its resolution", GREY, "none", marker="|", markersize=5))
    entries += not_drawn(len(runs), len(report.others), "runs")
    legend(figure, entries)
    return figure


PICTURE = Picture(
    "line_barrier",
    "Loss on the line between runs",
    "The most that the loss on the straight line from x_a to x_b rises above the straight line between the losses at "
    "its ends, at the points that were evaluated, all on one sample; at the right the losses themselves for the last "
    "pair.",
    _draw,
    place=20,
    kinds=("comparison",),
)

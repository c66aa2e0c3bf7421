"""Average and exponential convexity gap between consecutive iterates (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.metrics.averaging import BETA, LONG_BETA
from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.style import BLUE, DASHES, GREEN, VERMILLION
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_COLUMNS = {
    "avg_gap": ("average gap", BLUE),
    "exp_gap": (f"exponential average, β = {BETA}", VERMILLION),
    "exp_gap_9999": (f"exponential average, β = {LONG_BETA}", GREEN),
}


def _draw(report: SavedReport) -> Figure:
    found = [
        (column, sample, series)
        for sample in report.samples
        for column in _COLUMNS
        if (series := report.series("steps", column, sample=sample))
    ]
    if not found:
        raise NothingToDraw(report.why_empty("avg_gap", "exp_gap"))
    figure, axes = panels(1, height=3.2)
    ax = axes[0, 0]
    scale(ax, [series for *_, series in found])
    zero(ax)
    entries: list[Line2D | Patch] = []
    several = len({sample for _, sample, _ in found}) > 1
    for column, sample, series in found:
        label, color = _COLUMNS[column]
        line(ax, series, color, DASHES[sample])
        entries.append(entry(f"{label}, sample {sample}" if several else label, color, DASHES[sample]))
    finish(ax, r"gap $f(x_t)-f(x_{t-1})-\langle g_t,d_t\rangle$ [loss]")
    legend(figure, entries, columns=2)
    return figure


PICTURE = Picture(
    "convexity_gap",
    "Convexity gap to the previous iterate",
    "f(x_t) − f(x_{t−1}) − ⟨g_t, x_t − x_{t−1}⟩, both losses and the gradient on one sample, averaged from the start "
    "and exponentially. A convex loss gives at most 0.",
    _draw,
    place=30,
    on_demand=True,
)

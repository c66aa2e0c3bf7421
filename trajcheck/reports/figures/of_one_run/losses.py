"""The loss of every step, recorded or not."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale
from trajcheck.reports.figures.drawing.legends import entry, legend, patch
from trajcheck.reports.figures.drawing.style import BLUE
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_PALE = {"color": BLUE, "alpha": 0.25}


def _draw(report: SavedReport) -> Figure:
    if "losses" not in report.tables:
        raise NothingToDraw("the run has no losses of all steps: record it with every-step.f64, or give --log")
    mean, least, most = (report.series("losses", column) for column in ("loss", "loss_min", "loss_max"))
    if not mean:
        raise NothingToDraw("no loss of any step is known")
    figure, axes = panels(1)
    ax = axes[0, 0]
    several = bool((most.values > least.values).any())
    scale(ax, [mean, least, most] if several else [mean])
    if several:
        ax.fill_between(mean.steps, least.values, most.values, linewidth=0, **_PALE)
    line(ax, mean, BLUE)
    finish(ax, "$f(x_t;z_t)$ [loss]")
    entries = [entry("mean of a stretch of steps" if several else "loss on the step's own sample", BLUE)]
    legend(figure, [*entries, *([patch("least to largest in it", **_PALE)] if several else [])])
    return figure


PICTURE = Picture(
    "losses",
    "Loss of every step",
    "f(x_t; z_t) of all steps as the training had it, recorded or not: of long runs the mean of each of a thousand "
    "stretches, over the range from its least to its largest loss.",
    _draw,
    place=55,
)

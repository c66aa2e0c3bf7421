"""Several runs: the Hessian's largest eigenvalue against each one's threshold of stability."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trajcheck.reports.figures.drawing.axes import scale, zero
from trajcheck.reports.figures.drawing.legends import entry
from trajcheck.reports.figures.drawing.run_panels import SAMPLE_TITLES, Panel, draw_lines, figure_of
from trajcheck.reports.figures.drawing.style import COLOURS, GREY
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.several_reports import Together


def _draw(together: Together) -> Figure:
    found = together.on_samples("steps", "lambda_max")
    if not found:
        asked = any(report.summary["options"].get("curvature") for report in together.reports)
        raise NothingToDraw(together.why_empty("lambda_max") if asked else _ASK)
    parts = [Panel(SAMPLE_TITLES[sample], r"$\lambda_{max}$ [loss/length²]", lines) for sample, lines in found.items()]
    thresholds = together.first_sample("steps", "stability_threshold")

    def lines(ax: Axes, panel: Panel) -> None:
        limits = {place: thresholds[place] for place in panel.lines if place in thresholds}
        scale(ax, [*panel.lines.values(), *limits.values()])
        if ax.get_yscale() != "log":
            zero(ax)
        draw_lines(ax, panel)
        for place, series in limits.items():
            ax.plot(series.steps, series.values, "--", color=COLOURS[place], linewidth=1.2, zorder=2)

    def dress(ax: Axes, panel: Panel) -> list[Line2D]:
        drawn = any(place in thresholds for place in panel.lines)
        return [entry("dashes: stability threshold, 2/lr or 2(1+β)/lr", GREY, "--")] if drawn else []

    return figure_of(together, parts, lines, dress)


_ASK = "no Hessian was asked for: analyze with --curvature EVERY"

PICTURE = Picture(
    "sharpness",
    "Sharpness and the threshold of stability",
    "The largest eigenvalue of the Hessian at x_t, one sample to a panel (a minibatch's is not the full batch's), and "
    "in the same colour, dashed, the largest curvature at which gradient descent with the run's rate is stable; "
    "Adam's threshold is that of another matrix and is not drawn.",
    _draw,
    place=30,
    kinds=("together",),
)

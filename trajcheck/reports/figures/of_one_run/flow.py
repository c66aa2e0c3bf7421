"""The run against its gradient flow: distances, the integrator's error, the bound, both losses, and the extreme
eigenvalues of the Hessian along the flow where they were asked for (EC)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.style import BLACK, BLUE, GREEN, GREY, PURPLE, VERMILLION
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_DISTANCES = {
    "flow_dist": (r"to the flow, $|x_t-\theta(\tau_t)|$", BLUE, "-"),
    "init_dist": ("from the start of the flow", BLACK, "--"),
    "flow_error": ("error of the integration", GREY, ":"),
    "bound_estimate": ("estimated bound on the distance to the flow", VERMILLION, "-."),
}
_LOSSES = {"loss": ("loss of the run", BLUE, "-"), "flow_loss": ("loss of the flow", GREEN, "--")}
_EIGENVALUES = {
    "lambda_max": (r"$\lambda_{max}$ along the flow", VERMILLION, "-"),
    "lambda_min": (r"$\lambda_{min}$ along the flow", PURPLE, "-"),
}
_PANELS = (
    (_DISTANCES, "distance [length]"),
    (_LOSSES, "loss"),
    (_EIGENVALUES, "curvature [loss/length²]"),
)


def _draw(report: SavedReport) -> Figure:
    if not report.series("flow", "flow_dist"):
        raise NothingToDraw(report.why_empty("flow_dist"))
    parts = []
    for words, label in _PANELS:
        if drawn := {name: series for name in words if (series := report.series("flow", name))}:
            parts.append((drawn, words, label))
    figure, axes = panels(len(parts))
    entries: list[Line2D | Patch] = []
    for ax, (drawn, words, label) in zip(axes[:, 0], parts, strict=True):
        scale(ax, drawn.values())
        if words is _EIGENVALUES and ax.get_yscale() != "log":
            zero(ax)
        for name, series in drawn.items():
            text, color, style = words[name]
            line(ax, series, color, style)
            entries.append(entry(text, color, style))
        finish(ax, label, steps=ax is axes[-1, 0])
    legend(figure, entries, columns=2)
    return figure


PICTURE = Picture(
    "flow",
    "Distance to gradient flow",
    "x_t against gradient flow from the same start at equal time τ, the sum of the learning rates. A distance at or "
    "below the integration's error says nothing. The bound is an estimate: its constants are sampled on the flow. The "
    "Hessian's eigenvalues at the flow's points stand below, where --curvature asked for them.",
    _draw,
    place=10,
    kinds=("flow",),
)

"""The run against its gradient flow: distances, the integrator's error, the bound, both losses (EC)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.style import BLACK, BLUE, GREEN, GREY, VERMILLION
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_DISTANCES = {
    "flow_dist": (r"to the flow, $|x_t-\theta(\tau_t)|$", BLUE, "-"),
    "init_dist": ("from the start of the flow", BLACK, "--"),
    "flow_error": ("error of the integration", GREY, ":"),
    "bound_estimate": ("estimated bound on the distance to the flow", VERMILLION, "-."),
}
_LOSSES = {"loss": ("loss of the run", BLUE, "-"), "flow_loss": ("loss of the flow", GREEN, "--")}


def _draw(report: SavedReport) -> Figure:
    distances = {name: series for name in _DISTANCES if (series := report.series("flow", name))}
    losses = {name: series for name in _LOSSES if (series := report.series("flow", name))}
    if "flow_dist" not in distances:
        raise NothingToDraw(report.why_empty("flow_dist"))
    figure, axes = panels(1 + bool(losses))
    entries: list[Line2D | Patch] = []
    for ax, drawn, words, label in (
        (axes[0, 0], distances, _DISTANCES, "distance [length]"),
        *(((axes[1, 0], losses, _LOSSES, "loss"),) if losses else ()),
    ):
        scale(ax, drawn.values())
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
    "below the integration's error says nothing. The bound is an estimate: its constants are sampled on the flow.",
    _draw,
    place=10,
    kinds=("flow",),
)

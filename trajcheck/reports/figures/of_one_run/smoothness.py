"""Instantaneous, largest and exponentially averaged smoothness (TZC)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.metrics.averaging import BETA
from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, title
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.ratio_panel import sample_entries
from trajcheck.reports.figures.drawing.style import BLACK, DASHES, GREY
from trajcheck.reports.figures.drawing.towards import towards_references
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport, Series

_COLUMNS = {
    "inst_smooth": ("instantaneous", "#AAAAAA", 0.7),
    "max_smooth": ("largest so far", GREY, 1.6),
    "exp_smooth": (f"exponential average, β = {BETA}", BLACK, 1.2),
}


def _draw(report: SavedReport) -> Figure:
    own = report.of_samples(_COLUMNS)
    towards = towards_references(report, ["exp_smooth"])
    if not own and not towards.lines:
        raise NothingToDraw(report.why_empty("inst_smooth"))
    figure, axes = panels(bool(own) + bool(towards.lines))
    entries: list[Line2D | Patch] = []
    if own:
        _draw_own(axes[0, 0], own)
        entries += [
            entry(label, color) for column, (label, color, _) in _COLUMNS.items() if any(c == column for c, _ in own)
        ]
        title(axes[0, 0], r"$y=x_{t-1}$")
    if towards.lines:
        ax = axes[-1, 0]
        scale(ax, towards.lines.values())
        towards.draw(ax, "exp_smooth")
        title(ax, r"$y=x^*$, exponential averages")
        entries += towards.entries()
    for ax in axes[:, 0]:
        finish(ax, r"$|\nabla f(x_t)-\nabla f(y)|\,/\,|x_t-y|$" "\n[loss/length²]", steps=ax is axes[-1, 0])
    samples = [sample for _, sample in own] + [sample for *_, sample in towards.lines]
    entries += sample_entries(list(dict.fromkeys(samples)))
    legend(figure, [*entries, *(towards.not_drawn if towards.lines else [])])
    return figure


def _draw_own(ax: Axes, found: dict[tuple[str, str], Series]) -> None:
    scale(ax, found.values())
    for (column, sample), series in found.items():
        _, color, width = _COLUMNS[column]
        line(ax, series, color, DASHES[sample], linewidth=width)


PICTURE = Picture(
    "smoothness",
    "Smoothness along the path",
    "The change of the gradient over the change of the parameters, both gradients on one sample: from one iterate to "
    "the next and, where it was asked for, towards the references.",
    _draw,
    place=40,
)

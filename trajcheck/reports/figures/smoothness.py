"""Instantaneous, largest and exponentially averaged smoothness (TZC)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.axes import entry, finish, legend, line, not_drawn, panels, scale, title
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.figures.ratio_panel import sample_entries
from trajcheck.reports.figures.style import BLACK, COLOURS, DASHES, GREY, short, told_apart
from trajcheck.reports.reading.report import SavedReport, Series

_COLUMNS = {
    "inst_smooth": ("instantaneous", "#AAAAAA", 0.7),
    "max_smooth": ("largest so far", GREY, 1.6),
    "exp_smooth": ("exponential average, β = 0.99", BLACK, 1.2),
}


def _draw(report: SavedReport) -> Figure:
    own = report.of_samples(_COLUMNS)
    refs = told_apart(report.references)
    towards = {
        (number, sample): series
        for number, ref in enumerate(refs)
        for sample in report.samples
        if (series := report.series("references", "exp_smooth", ref=ref, sample=sample))
    }
    if not own and not towards:
        raise NothingToDraw(report.why_empty("inst_smooth"))
    figure, axes = panels(bool(own) + bool(towards))
    entries: list[Line2D | Patch] = []
    if own:
        _draw_own(axes[0, 0], own)
        entries += [
            entry(label, color) for column, (label, color, _) in _COLUMNS.items() if any(c == column for c, _ in own)
        ]
        title(axes[0, 0], r"$y=x_{t-1}$")
    if towards:
        ax = axes[-1, 0]
        scale(ax, towards.values())
        for (number, sample), series in towards.items():
            line(ax, series, COLOURS[number], DASHES[sample])
        title(ax, r"$y=x^*$, exponential averages")
        entries += [entry(f"towards {short(refs[n])}", COLOURS[n]) for n in dict.fromkeys(n for n, _ in towards)]
    for ax in axes[:, 0]:
        finish(ax, r"$|\nabla f(x_t)-\nabla f(y)|\,/\,|x_t-y|$" "\n[loss/length²]", steps=ax is axes[-1, 0])
    entries += sample_entries(list(dict.fromkeys(sample for _, sample in (*own, *towards))))
    legend(figure, [*entries, *(not_drawn(len(refs), len(report.references)) if towards else [])])
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
)

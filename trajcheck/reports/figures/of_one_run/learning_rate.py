"""The learning rate that the path prescribes against the one that was used (NWT)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import alone, entry, finish, legend, line, panels, scale, zero
from trajcheck.reports.figures.drawing.style import BLACK, COLOURS
from trajcheck.reports.figures.drawing.towards import towards_references
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport


def _draw(report: SavedReport) -> Figure:
    towards = towards_references(report, ("lo_lr", "lo_lr_smooth"))
    if not towards.lines:
        raise NothingToDraw(report.why_empty("lo_lr"))
    used = report.series("steps", "lr", sample=report.samples[0])
    figure, axes = panels(1, height=3.6)
    ax = axes[0, 0]
    scale(ax, [*towards.lines.values(), *([used] if used else [])])
    if ax.get_yscale() != "log":
        zero(ax)
    for (number, sample), series in towards.of_column("lo_lr").items():
        if sample == report.samples[0]:
            here = series.defined
            size = 2.5 if alone(here).any() or here.sum() < 500 else 1.2
            ax.plot(series.steps, series.values, "o", markersize=size, color=COLOURS[number], alpha=0.35, zorder=1)
    towards.draw(ax, "lo_lr_smooth", linewidth=1.4)
    line(ax, used, BLACK, "-", linewidth=1.6, zorder=4)
    finish(ax, "learning rate [length²/loss]")
    entries: list[Line2D | Patch] = [
        *([entry("used", BLACK)] if used else []),
        *towards.entries("prescribed towards", length=24),
        entry("of single rows", "#888888", "none", marker="o", markersize=3),
    ]
    legend(figure, [*entries, *towards.sample_entries, *towards.not_drawn])
    return figure


PICTURE = Picture(
    "learning_rate",
    "Prescribed and used learning rate",
    "The rate of the SGD step that comes nearest to x*, ⟨g_t, e_t⟩/|g_t|²: of single rows (points) and over a window "
    "of rows (lines), against the rate that was used. Negative: a step against the gradient leads away from x*. It "
    "promises nothing for momentum and Adam, and is not drawn there.",
    _draw,
    place=80,
)

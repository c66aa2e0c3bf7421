"""The learning rate that the path prescribes against the one that was used (NWT)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.axes import alone, entry, finish, legend, line, not_drawn, panels, scale, zero
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.figures.ratio_panel import sample_entries
from trajcheck.reports.figures.style import BLACK, COLOURS, DASHES, short, told_apart
from trajcheck.reports.reading.report import SavedReport


def _draw(report: SavedReport) -> Figure:
    refs = told_apart(report.references)
    found = {
        (column, number, sample): series
        for column in ("lo_lr", "lo_lr_smooth")
        for number, ref in enumerate(refs)
        for sample in report.samples
        if (series := report.series("references", column, ref=ref, sample=sample))
    }
    if not found:
        raise NothingToDraw(report.why_empty("lo_lr"))
    used = report.series("steps", "lr", sample=report.samples[0])
    figure, axes = panels(1, height=3.6)
    ax = axes[0, 0]
    scale(ax, [*found.values(), *([used] if used else [])])
    if ax.get_yscale() != "log":
        zero(ax)
    for (column, number, sample), series in found.items():
        if column == "lo_lr_smooth":
            line(ax, series, COLOURS[number], DASHES[sample], linewidth=1.4)
        elif sample == report.samples[0]:
            here = series.defined
            size = 2.5 if alone(here).any() or here.sum() < 500 else 1.2
            ax.plot(series.steps, series.values, "o", markersize=size, color=COLOURS[number], alpha=0.35, zorder=1)
    line(ax, used, BLACK, "-", linewidth=1.6, zorder=4)
    finish(ax, "learning rate [length²/loss]")
    shown = dict.fromkeys(number for _, number, _ in found)
    entries: list[Line2D | Patch] = [
        *([entry("used", BLACK)] if used else []),
        *(entry(f"prescribed towards {short(refs[n], 24)}", COLOURS[n]) for n in shown),
        entry("of single rows", "#888888", "none", marker="o", markersize=3),
    ]
    entries += sample_entries(list(dict.fromkeys(sample for *_, sample in found)))
    legend(figure, [*entries, *not_drawn(len(refs), len(report.references))])
    return figure


PICTURE = Picture(
    "learning_rate",
    "Prescribed and used learning rate",
    "The rate of the SGD step that comes nearest to x*, ⟨g_t, e_t⟩/|g_t|²: of single rows (points) and over a window "
    "of rows (lines), against the rate that was used. Negative: a step against the gradient leads away from x*. It "
    "promises nothing for momentum and Adam, and is not drawn there.",
    _draw,
)

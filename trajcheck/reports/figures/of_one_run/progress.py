"""What the updates were worth: inner products of gradient and update, changes of the loss, by step and summed (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.ratio_panel import sample_entries
from trajcheck.reports.figures.drawing.style import BLUE, DASHES, SKY, VERMILLION
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_COLUMNS = {
    "descent": (r"descent $\langle g_{t-1},d_t\rangle$", SKY),
    "update_corr": (r"update_corr $\langle g_t,d_t\rangle$", BLUE),
    "loss_change": (r"loss_change $f(x_t)-f(x_{t-1})$", VERMILLION),
}


def _draw(report: SavedReport) -> Figure:
    found = {
        (ending, column, sample): series
        for ending in ("", "_sum")
        for column in _COLUMNS
        for sample in report.samples
        if (series := report.series("steps", column + ending, sample=sample))
    }
    if not found:
        raise NothingToDraw(report.why_empty("update_corr", "loss_change"))
    figure, axes = panels(2)
    for ax, ending, label in zip(axes[:, 0], ("", "_sum"), ("each step [loss]", "summed [loss]"), strict=True):
        drawn = {key[1:]: series for key, series in found.items() if key[0] == ending}
        scale(ax, drawn.values())
        zero(ax)
        for (column, sample), series in drawn.items():
            line(ax, series, _COLUMNS[column][1], DASHES[sample], linewidth=1.1 if ending else 0.8)
        finish(ax, label, steps=bool(ending))
    entries: list[Line2D | Patch] = [
        entry(label, color) for column, (label, color) in _COLUMNS.items() if any(c == column for _, c, _ in found)
    ]
    legend(figure, [*entries, *sample_entries(list(dict.fromkeys(sample for *_, sample in found)))])
    return figure


PICTURE = Picture(
    "progress",
    "Update correlation and change of the loss",
    "⟨g_t, d_t⟩ with the gradient after the update, ⟨g_{t−1}, d_t⟩ with the one before it, and the change of the loss "
    "on one sample; beneath, their sums over the run, each row weighing as many steps as it stands for. The "
    "difference between the sums of loss_change and update_corr is the sum of the convexity gaps.",
    _draw,
    place=60,
)

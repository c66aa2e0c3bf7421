"""What the descent lemma predicts of the loss, summed over the run, beside what the updates did to it (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.ratio_panel import sample_entries
from trajcheck.reports.figures.drawing.style import BLACK, BLUE, DASHES, SKY, VERMILLION
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_COLUMNS = {
    "predicted_change_max_sum": ("predicted, largest smoothness so far", SKY),
    "predicted_change_exp_sum": ("predicted, exponential average of the smoothness", BLUE),
    "loss_change_sum": (r"loss_change $f(x_t)-f(x_{t-1})$", VERMILLION),
    "loss_change_known": (r"known $f(x_t)-f(x_0)$", BLACK),
}


def _draw(report: SavedReport) -> Figure:
    found = {
        (column, sample): series
        for column in _COLUMNS
        for sample in report.samples
        if (series := report.series("steps", column, sample=sample))
    }
    if not any(column.startswith("predicted") for column, _ in found):
        raise NothingToDraw(report.why_empty("predicted_change_exp_sum", "predicted_change_max_sum"))
    figure, axes = panels(1, height=3.2)
    ax = axes[0, 0]
    scale(ax, found.values())
    zero(ax)
    for (column, sample), series in found.items():
        line(ax, series, _COLUMNS[column][1], DASHES[sample], linewidth=1.1)
    finish(ax, "summed [loss]")
    entries: list[Line2D | Patch] = [
        entry(label, color) for column, (label, color) in _COLUMNS.items() if any(c == column for c, _ in found)
    ]
    legend(figure, [*entries, *sample_entries(list(dict.fromkeys(sample for _, sample in found)))])
    return figure


PICTURE = Picture(
    "predicted",
    "Predicted and found change of the loss",
    "Sums of ⟨g_{t−1}, d_t⟩ + (L/2) |d_t|², L the largest smoothness up to the row or an exponential average of it, "
    "beside the sum of the changes of the loss. The descent lemma promises that the change lies below the first; the "
    "second asks whether the recent smoothness predicts it.",
    _draw,
    place=62,
    on_demand=True,
)

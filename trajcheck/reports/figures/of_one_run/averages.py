"""How far the iterates are above averages of them."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, title, zero
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.style import COLOURS, short, told_apart
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

_PANELS = (
    ("valley_height", "$f(x_t;z)-f(avg_t;z)$ [loss]", "height above the valley"),
    ("jensen_gap", "$f(avg_t;z)-$mean of $f$ [loss]", "against the mean loss of the averaged iterates"),
)


def _draw(report: SavedReport) -> Figure:
    if "averages" not in report.tables:
        raise NothingToDraw("losses at averages of iterates were not asked for: give --average last:K, --sample probe")
    averages = report.keys("averages", "average")
    shown, samples = told_apart(averages), report.keys("averages", "sample")
    drawn = {
        (sample, column): {name: report.series("averages", column, average=name, sample=sample) for name in shown}
        for sample in samples
        for column, _, _ in _PANELS
    }
    drawn = {key: lines for key, lines in drawn.items() if any(lines.values())}
    if not any(column == "valley_height" for _, column in drawn):
        raise NothingToDraw(report.why_empty("valley_height"))
    figure, axes = panels(len(drawn))
    words = {column: (label, what) for column, label, what in _PANELS}
    for ax, ((sample, column), lines) in zip(axes[:, 0], drawn.items(), strict=True):
        label, what = words[column]
        scale(ax, lines.values())
        zero(ax)
        for colour, series in zip(COLOURS, lines.values(), strict=False):
            line(ax, series, colour)
        title(ax, f"{what}, sample {sample}")
        finish(ax, label, steps=ax is axes[-1, 0])
    entries = [entry(short(name), colour) for name, colour in zip(shown, COLOURS, strict=False)]
    legend(figure, [*entries, *not_drawn(len(shown), len(averages), "averages")])
    return figure


PICTURE = Picture(
    "averages",
    "Height above the valley",
    "f(x_t; z) - f(avg_t; z), avg_t averages of the recorded iterates up to x_t: above 0 where the average has the "
    "lower loss; and f(avg_t; z) less the mean loss of the iterates that it is of, at most 0 where the loss is convex "
    "there. Bands are standard errors over probe batches.",
    _draw,
    place=64,
)

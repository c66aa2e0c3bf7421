"""How far the run went: from its start, along its path, and to the references."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale
from trajcheck.reports.figures.drawing.legends import entry, legend
from trajcheck.reports.figures.drawing.style import BLACK, COLOURS, GREY
from trajcheck.reports.figures.drawing.towards import towards_references
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport


def _draw(report: SavedReport) -> Figure:
    sample = report.samples[0]
    own = {name: report.series("steps", name, sample=sample) for name in ("init_dist", "path_length")}
    towards = towards_references(report, ["ref_dist"], samples=[sample])
    drawn = [*(series for series in own.values() if series), *towards.lines.values()]
    if not drawn:
        raise NothingToDraw(report.why_empty("init_dist", "ref_dist"))
    figure, axes = panels(1, height=3.4)
    ax = axes[0, 0]
    scale(ax, drawn)
    line(ax, own["path_length"], GREY, ":")
    line(ax, own["init_dist"], BLACK, "--", zorder=3)
    for (number, _), series in towards.of_column("ref_dist").items():
        line(ax, series, COLOURS[number])
    finish(ax, "distance [length of the parameters]")
    entries: list[Line2D | Patch] = [
        *towards.entries("to"),
        *([entry(r"from the start, $|x_t-x_0|$", BLACK, "--")] if own["init_dist"] else []),
        *([entry(r"along the path, $\sum|d_i|$", GREY, ":")] if own["path_length"] else []),
    ]
    legend(figure, [*entries, *towards.not_drawn])
    return figure


PICTURE = Picture(
    "distances",
    "Distances",
    "Euclidean distances over all parameters, from the first recorded iterate and to every reference, and the length "
    "of the path (of chords, where steps were left out).",
    _draw,
    place=90,
)

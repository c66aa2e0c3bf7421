"""Distances between runs, and whether they went the same way."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import finish, line, panels, scale, zero
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn
from trajcheck.reports.figures.drawing.style import BLACK, COLOURS, short, told_apart
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

#: The last colour is run A's own.
_OTHERS = COLOURS[:-1]


def _draw(report: SavedReport) -> Figure:
    runs = told_apart(report.others)[: len(_OTHERS)]
    columns = ("dist", "init_dist_a", "init_dist_b", "displacement_cos", "update_cos")
    found = {
        (column, number): series
        for column in columns
        for number, run in enumerate(runs)
        if (series := report.drawn("compare", column, run_b=run))
    }
    if not any(column == "dist" for column, _ in found):
        raise NothingToDraw(report.why_empty("dist"))
    cosines = {key: series for key, series in found.items() if key[0].endswith("cos")}
    lengths = {key: series for key, series in found.items() if key not in cosines}
    figure, axes = panels(1 + bool(cosines))
    upper = axes[0, 0]
    scale(upper, lengths.values())
    for (column, number), series in lengths.items():
        if column == "init_dist_a":
            line(upper, series, BLACK, ":") if number == 0 else None
        else:
            line(upper, series, _OTHERS[number], "-" if column == "dist" else ":")
    finish(upper, "distance [length]", steps=not cosines, along=report.along)
    if cosines:
        lower = axes[1, 0]
        zero(lower)
        for (column, number), series in cosines.items():
            displacement = column == "displacement_cos"
            line(lower, series, _OTHERS[number], "-" if displacement else "--", linewidth=1.2 if displacement else 0.7)
        finish(lower, "cosine [1]", along=report.along)
    entries: list[Line2D | Patch] = [
        *(entry(f"b: {short(run)}", _OTHERS[number]) for number, run in enumerate(runs)),
        entry(r"$|x_a-x_b|$; cosine of displacements", "#888888"),
        entry("distance from the own first record (a: black)", "#888888", ":"),
    ]
    if any(column == "update_cos" for column, _ in cosines):
        entries.append(entry("cosine of last steps", "#888888", "--"))
    entries += not_drawn(len(runs), len(report.others), "runs")
    legend(figure, entries, columns=2)
    return figure


PICTURE = Picture(
    "between_runs",
    "Distances between runs",
    "|x_a − x_b| of the matched iterates, beside the distance of each run from its own first record; beneath, the "
    "cosines of the two displacements from the first records, and of the last steps.",
    _draw,
    place=10,
    kinds=("comparison",),
)

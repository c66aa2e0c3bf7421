"""Groups of runs: the convexity ratio towards each one's x* (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, GroupPanel, figure_of_groups
from trajcheck.reports.figures.drawing.ratio_panel import LABEL, ratios_of_several
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    parts = [
        GroupPanel(words, LABEL, curves, (0.0, 1.0))
        for words, lines, _ in ratios_of_several(grouped)
        if (curves := grouped.averaged(lines))
    ]
    return figure_of_groups(grouped, parts, "convexity_ratio")


PICTURE = Picture(
    "convexity_ratio",
    "Convexity ratio",
    "num/den towards x*, both summed from each run's start, one sample to a panel: where den > 0, convex functions "
    "give at least 1. Of own samples towards a later iterate of the run it is without the steps' own terms where the "
    f"headline's is, and runs whose ratio holds them have a panel of their own. {SPREAD}",
    _draw,
    place=20,
    kinds=("grouped",),
)

"""Groups of runs: the convexity ratio towards each one's x* (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, figure_of_groups, sample_panels
from trajcheck.reports.figures.drawing.ratio_panel import LABEL
from trajcheck.reports.figures.drawing.run_panels import towards
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    def words(sample: str) -> str:
        return f"{towards(grouped)}, {sample}"

    parts = sample_panels(grouped, "references", "convexity_ratio", LABEL, words, (0.0, 1.0))
    return figure_of_groups(grouped, parts, "convexity_ratio")


PICTURE = Picture(
    "convexity_ratio",
    "Convexity ratio",
    "num/den towards x*, both summed from each run's start, one sample to a panel: where den > 0, convex functions "
    f"give at least 1. {SPREAD}",
    _draw,
    place=20,
    kinds=("grouped",),
)

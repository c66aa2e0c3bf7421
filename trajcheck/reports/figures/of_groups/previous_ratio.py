"""Groups of runs: the convexity ratio towards the previous iterate (TZC)."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, figure_of_groups, sample_panels
from trajcheck.reports.figures.drawing.ratio_panel import LABEL
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    def words(sample: str) -> str:
        return f"towards $x_{{t-1}}$, {sample}"

    parts = sample_panels(grouped, "steps", "convexity_ratio", LABEL, words, (0.0, 1.0))
    return figure_of_groups(grouped, parts, "convexity_ratio")


PICTURE = Picture(
    "previous_ratio",
    "Convexity ratio towards the previous iterate",
    "num/den towards x_{t-1}, both summed from each run's start, one sample to a panel: den is below 0 while the loss "
    f"falls, and convex functions then give at most 1. {SPREAD}",
    _draw,
    place=25,
    kinds=("grouped",),
)

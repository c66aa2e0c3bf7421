"""Groups of runs: the loss on each sample."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, figure_of_groups, sample_panels
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    parts = sample_panels(grouped, "steps", "loss", "$f(x_t)$ [loss]", str)
    return figure_of_groups(grouped, parts, "loss")


PICTURE = Picture(
    "loss",
    "Loss",
    "f(x_t) on one sample to a panel, replayed where there was an objective, else as the training recorded it. "
    f"{SPREAD}",
    _draw,
    place=50,
    kinds=("grouped",),
)

"""Groups of runs: how far each went from its start, and how far it was from its x*."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.group_panels import SPREAD, GroupPanel, figure_of_groups
from trajcheck.reports.figures.drawing.run_panels import towards
from trajcheck.reports.figures.picture import Picture
from trajcheck.reports.reading.groups import Grouped


def _draw(grouped: Grouped) -> Figure:
    init = grouped.curves("steps", "init_dist", None)
    ref = grouped.curves("references", "ref_dist", None, **grouped.towards_ref)
    parts = [
        *([GroupPanel("from the run's own first record", r"$|x_t-x_0|$ [length]", init)] if init else []),
        *([GroupPanel(towards(grouped), r"$|x_t-x^*|$ [length]", ref)] if ref else []),
    ]
    return figure_of_groups(grouped, parts, "init_dist", "ref_dist")


PICTURE = Picture(
    "distances",
    "Distances",
    f"Euclidean distances over all parameters of each run, from its own first recorded iterate and to x*. {SPREAD}",
    _draw,
    place=40,
    kinds=("grouped",),
)

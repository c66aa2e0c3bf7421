"""Several runs: how far each went from its start, and how far it was from its x*."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.run_panels import Panel, figure_of, towards
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.several_reports import Together


def _draw(together: Together) -> Figure:
    init = together.first_sample("steps", "init_dist")
    ref = together.first_sample("references", "ref_dist", **together.towards_ref)
    parts = [
        *([Panel("from the run's own first record", r"$|x_t-x_0|$ [length]", init)] if init else []),
        *([Panel(towards(together), r"$|x_t-x^*|$ [length]", ref)] if ref else []),
    ]
    if not parts:
        raise NothingToDraw(together.why_empty("init_dist", "ref_dist"))
    return figure_of(together, parts)


PICTURE = Picture(
    "distances",
    "Distances",
    "Euclidean distances over all parameters of each run, from its own first recorded iterate and to x*. Whether two "
    "runs are near each other they do not say: that is what trajcheck compare measures.",
    _draw,
    place=40,
    kinds=("together",),
)

"""Several runs: the loss on each sample."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.run_panels import SAMPLE_TITLES, Panel, figure_of
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.several_reports import Together


def _draw(together: Together) -> Figure:
    found = together.on_samples("steps", "loss")
    if not found:
        raise NothingToDraw(together.why_empty("loss"))
    parts = [
        Panel(SAMPLE_TITLES[sample], "$f(x_t)$ [loss]", lines, noisy=sample in ("own", "previous"))
        for sample, lines in found.items()
    ]
    return figure_of(together, parts)


PICTURE = Picture(
    "loss",
    "Loss",
    "f(x_t) on one sample to a panel, replayed where there was an objective, else as the training recorded it. Runs "
    "of other data, or of another loss, are on another scale. Bands are standard errors over probe batches.",
    _draw,
    place=50,
    kinds=("together",),
)

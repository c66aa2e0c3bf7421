"""Several runs: does the gradient point away from each one's x*?"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import zero
from trajcheck.reports.figures.drawing.run_panels import SAMPLE_TITLES, Panel, draw_lines, figure_of, towards
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.several_reports import Together

_LABEL = r"$\cos(g_t,\ x_t-x^*)$"
_SKIP = r"$\cos(g_t,\ x_s-x^*),\ s>t$"


def cosine_panels(together: Together) -> list[Panel]:
    """A panel a sample; of own samples cos_skip, and in a panel of their own the runs that have none."""
    parts = []
    for sample, lines in together.on_samples("references", "cos", **together.towards_ref).items():
        if sample == "own":
            skip = together.lines("references", "cos_skip", sample="own", **together.towards_ref)
            if skip:
                parts.append(
                    Panel(
                        f"{towards(together)}, own sample, without the step's own term: cos_skip",
                        _SKIP,
                        skip,
                        noisy=True,
                    )
                )
            lines = {place: series for place, series in lines.items() if place not in skip}
        if lines:
            parts.append(
                Panel(
                    f"{towards(together)}, {SAMPLE_TITLES[sample]}", _LABEL, lines, noisy=sample in ("own", "previous")
                )
            )
    return parts


def _draw(together: Together) -> Figure:
    parts = cosine_panels(together)
    if not parts:
        raise NothingToDraw(together.why_empty("cos"))

    return figure_of(together, parts, _lines)


def _lines(ax: Axes, panel: Panel) -> None:
    zero(ax)
    draw_lines(ax, panel)


PICTURE = Picture(
    "cosine",
    "Cosine of the gradient",
    "The cosine between the gradient and x_t − x*, one sample to a panel; below 0 a small step against the gradient "
    "leads away from x*. Of own samples towards a later iterate of the run it is cos_skip, which leaves out the "
    "step's own term; runs that have none have a panel of their own, with cosines that hold it unless x* is known not "
    "to depend on the step. Bands are standard errors over probe batches.",
    _draw,
    place=10,
    kinds=("together",),
)

"""(L0, L1)-smoothness: the smoothness along the path against the gradient, and its upper envelope (Zhang et al.)."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.envelopes import draw_panels
from trajcheck.reports.figures.drawing.fitted import SMOOTHNESS, envelopes, why_no_fit
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport


def _draw(report: SavedReport) -> Figure:
    found = envelopes(report, "l0_l1", ("L0", "L1"), "grad_norm", r"$|\nabla f|$")
    if not found:
        raise NothingToDraw(why_no_fit(report, "l0_l1"))
    return draw_panels(found, r"$|\nabla f(x_t;z)|$ [loss/length]", SMOOTHNESS)


PICTURE = Picture(
    "l0_l1",
    "(L0, L1)-smoothness",
    "The change of the gradient over the change of the parameters against the norm of the gradient, a point a row, "
    "coloured by step; both on one sample. The line is the upper envelope of least excess, and rests on the ringed "
    "points; dashed the constant bound, dotted the median of the same fit after stretches of the gradient's norms have "
    "changed places. In brackets 90% intervals; what is explained is the share of the constant bound's excess that is "
    "saved.",
    _draw,
    place=42,
    on_demand=True,
)

"""(H0, H1)-smoothness: the smoothness along the path against the loss, and its upper envelope (Alimisis et al.)."""

from __future__ import annotations

from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.envelopes import draw_panels
from trajcheck.reports.figures.drawing.fitted import SMOOTHNESS, envelopes, why_no_fit
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport


def _draw(report: SavedReport) -> Figure:
    found = envelopes(report, "h0_h1", ("H0", "H1"), "loss", r"$(f-f_{\inf})$", report.loss_floor)
    if not found:
        raise NothingToDraw(why_no_fit(report, "h0_h1"))
    return draw_panels(found, r"$f(x_t;z)-f_{\inf}$ [loss]", SMOOTHNESS)


PICTURE = Picture(
    "h0_h1",
    "(H0, H1)-smoothness",
    "The change of the gradient over the change of the parameters against the loss above its lower bound f_inf, a "
    "point a row, coloured by step; both on one sample. The line is the upper envelope of least excess, and rests on "
    "the ringed points; dashed the constant bound, dotted the median of the same fit after stretches of the losses "
    "have changed places. In brackets 90% intervals; what is explained is the share of the constant bound's excess "
    "that is saved.",
    _draw,
    place=44,
    on_demand=True,
)

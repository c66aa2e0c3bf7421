"""The ABC condition: the mean square of the batches' gradients beneath its bound (Khaled and Richtarik)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.envelopes import Panel, draw_panels
from trajcheck.reports.figures.drawing.fitted import explains, fit_of, why_no_fit, with_ends
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.quantities.ledger import SAMPLES
from trajcheck.reports.reading.report import SavedReport

_NAMES = ("A", "B", "C")


def _draw(report: SavedReport) -> Figure:
    found = [panel for sample in report.samples if (panel := _panel(report, sample)) is not None]
    if not found:
        raise NothingToDraw(why_no_fit(report, "abc"))
    across = r"$2A\,(f(x_t)-f_{\inf})+B\,|\nabla f(x_t)|^2+C$ [loss²/length²]"
    return draw_panels(found, across, r"$E|g|^2$ [loss²/length²]")


def _panel(report: SavedReport, sample: str) -> Panel | None:
    fit = fit_of(report, "abc", sample)
    if not set(_NAMES) <= fit.keys():
        return None
    signal, square, loss = (
        report.series("steps", name, sample=sample) for name in ("grad_true_sq", "batch_grad_sq", "loss")
    )
    if not len(signal.steps) == len(square.steps) == len(loss.steps):  # rows on which nobody asked for one
        return None
    here = signal.defined & square.defined & loss.defined
    if signal.errors is not None:
        here &= signal.values > np.nan_to_num(signal.errors, nan=np.inf)
    if not here.any():
        return None
    a, b, c = (fit[name]["constant"] for name in _NAMES)
    bound = 2 * a * (loss.values - report.loss_floor) + b * signal.values + c
    saved, chance = explains(fit)
    words = [r"$E|g|^2=$ its bound", *(with_ends(name, fit[name]) for name in _NAMES), saved, chance]
    return Panel(
        *(loss.steps[here], bound[here], square.values[here], (0.0, 1.0), "\n".join(filter(None, words)), None, ""),
        SAMPLES.get(sample, sample),
    )


PICTURE = Picture(
    "abc",
    "The ABC condition",
    "The mean of |g_b|² over the probe batches against its bound of least excess by loss and gradient, a point a row "
    "on which |∇f|² is above its error, coloured by step. On the line a row reaches the bound; the bound rests on the "
    "ringed points. Dashed the constant bound. In brackets 90% intervals.",
    _draw,
    place=46,
    on_demand=True,
)

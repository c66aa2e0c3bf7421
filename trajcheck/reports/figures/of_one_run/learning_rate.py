"""The learning rate that the path prescribes against the one that was used (NWT)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.axes import FEW, finish, grid, line, shade, title
from trajcheck.reports.figures.drawing.legends import entry, legend, not_drawn, patch
from trajcheck.reports.figures.drawing.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILLION, short
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport, Series

#: The most references that have panels of their own.
MOST = 6

#: What is drawn of the prescribed rate: (sample, column), label, colour, style. Points are single rows.
_LINES: tuple[tuple[str, str, str, str, str], ...] = (
    ("own", "lo_lr", "own sample, single rows", BLUE, "points"),
    ("own", "lo_lr_smooth", "own sample, window of rows", BLUE, "-"),
    ("own", "lo_lr_skip", "without the step's own term", VERMILLION, "points"),
    ("previous", "lo_lr_smooth", "previous sample, window", PURPLE, ":"),
    ("full", "lo_lr_smooth", "whole data set, window", GREEN, "-."),
    ("probe", "lo_lr_smooth", "probe batches, window", ORANGE, "--"),
)

#: The most decades that are shown, and the height of one line's bar of negative rates, as a share of the panel's.
DECADES, BAR = 7, 0.025


def _draw(report: SavedReport) -> Figure:
    found = {ref: lines for ref in report.references if (lines := _prescribed(report, ref))}
    if not found:
        raise NothingToDraw(report.why_empty("lo_lr"))
    used = report.series("steps", "lr", sample=report.samples[0])
    shown = dict(list(found.items())[:MOST])
    figure, axes, across = grid(len(shown), height=3.4 if len(shown) == 1 else 2.5)
    low, high = _limits([each for lines in shown.values() for each in lines.values()], used)
    entries: dict[str, Line2D | Patch] = {}
    if used:
        entries["used"] = entry("used", BLACK)
    for number, (ax, (ref, lines)) in enumerate(zip(axes, shown.items(), strict=True)):
        ax.set_yscale("log", nonpositive="mask")
        ax.set_ylim(low, high)
        for each in _draw_prescribed(ax, lines, low):
            entries.setdefault(str(each.get_label()), each)
        line(ax, _positive(used, low), BLACK, linewidth=1.5, zorder=4)
        title(ax, f"towards {short(ref, 54 // across)}")
        left, lowest = number % across == 0, number + across >= len(shown)
        finish(ax, "learning rate\n[length²/loss]" if left else "", steps=lowest, across=across)
    legend(figure, [*entries.values(), *not_drawn(len(shown), len(found))], columns=2)
    return figure


def _prescribed(report: SavedReport, ref: str) -> dict[int, Series]:
    """The lines of one reference that have a value, by their place in _LINES."""
    every = {
        place: report.series("references", column, ref=ref, sample=sample)
        for place, (sample, column, *_) in enumerate(_LINES)
    }
    return {place: series for place, series in every.items() if series}


def _draw_prescribed(ax: Axes, lines: dict[int, Series], low: float) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = []
    negative = False
    for place, series in lines.items():
        _, _, label, color, style = _LINES[place]
        above = _positive(series, low)
        if style == "points":
            look: dict[str, Any] = {"marker": "o", "markersize": 2.5 if len(series.steps) < 500 else 1.2}
            ax.plot(above.steps, above.values, color=color, linestyle="none", alpha=0.3, zorder=1, **look)
            entries.append(entry(label, color, "none", marker="o", markersize=3, alpha=0.5))
        elif above:
            line(ax, above, color, style, linewidth=0.9 if len(series.steps) > 5 * FEW else 1.2)
            entries.append(entry(label, color, style))
        below = series.defined & (series.values < 0)
        alpha = 0.3 if style == "points" else 0.9
        shade(ax, series.steps, below, (place + 0.6) * BAR, (place + 1.4) * BAR, color=color, alpha=alpha, zorder=3)
        negative |= bool(below.any())
    if negative:
        entries.append(patch("bars at the foot: negative rates", facecolor=BLUE))
    return entries


def _positive(series: Series, low: float) -> Series:
    """The values above 0, and errors no further down than the panel."""
    with np.errstate(invalid="ignore"):
        values = np.where(series.values > 0, series.values, np.nan)
        errors = None if series.errors is None else np.minimum(series.errors, values - low / 2)
    return Series(series.steps, values, None if errors is None else np.where(errors > 0, errors, np.nan))


def _limits(prescribed: list[Series], used: Series) -> tuple[float, float]:
    """Around the positive values, single ones far off apart, with room for the bars at the foot."""
    parts = [values[values > 0] for values in (each.values[each.defined] for each in (*prescribed, used))]
    ends = [np.log10(np.percentile(part, (1, 99))) for part in parts if len(part)]
    if not ends:
        return 0.1, 10.0
    high = float(max(high for _, high in ends))
    low = max(float(min(low for low, _ in ends)), high - DECADES)
    span = max(high - low, 0.5)
    return float(10 ** max(low - 0.25 * span, -300.0)), float(10 ** min(high + 0.12 * span, 300.0))


PICTURE = Picture(
    "learning_rate",
    "Prescribed and used learning rate",
    "The rate of the SGD step that comes nearest to x*, ⟨g_t, e_t⟩/|g_t|²: of single rows (points) and over a window "
    "of rows (lines), against the rate that was used, a panel a reference, on a logarithmic axis. Where it is "
    "negative, and a step against the gradient leads away from x*, a bar stands at the foot of the panel in place of "
    "a value. Towards a later iterate, own samples prescribe the rate that was used whatever the geometry, as pure "
    "noise does; only what is without the step's own term, ⟨g_t, x_s − x*⟩/|g_t|², tells anything there. It promises "
    "nothing for momentum and Adam, and is not drawn there.",
    _draw,
    place=80,
)

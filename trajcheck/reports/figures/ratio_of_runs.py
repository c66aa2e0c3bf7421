"""Several runs: the convexity ratio towards each one's x* (TZC)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trajcheck.reports.figures.axes import entry, scale
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.figures.ratio_panel import LABEL
from trajcheck.reports.figures.several_runs import SAMPLE_TITLES, Panel, figure_of, run_line, towards
from trajcheck.reports.figures.style import GREY
from trajcheck.reports.saved import Series
from trajcheck.reports.together import Together

_TURNED = ":"


def _draw(together: Together) -> Figure:
    found = together.on_samples("references", "convexity_ratio", **together.towards_ref)
    if not found:
        raise NothingToDraw(together.why_empty("convexity_ratio"))
    dens = {
        sample: together.lines("references", "convexity_den", sample=sample, **together.towards_ref) for sample in found
    }
    parts = {
        sample: Panel(f"{towards(together)}, {SAMPLE_TITLES[sample]}", LABEL, lines) for sample, lines in found.items()
    }
    den_of = {id(panel): dens[sample] for sample, panel in parts.items()}

    def lines(ax: Axes, panel: Panel) -> None:
        scale(ax, panel.lines.values(), linear_up_to=2.0)
        for place, ratio in panel.lines.items():
            for style, part in split(ratio, den_of[id(panel)][place]).items():
                run_line(ax, part, place, style)

    def dress(ax: Axes, panel: Panel) -> list[Line2D]:
        bottom, top = ax.get_ylim()
        ax.set_ylim(min(bottom, -0.2), max(top, 1.4))
        for level in (0.0, 1.0):
            ax.axhline(level, color=GREY, linewidth=0.8, zorder=1)
        turned = any(split(ratio, den_of[id(panel)][place])[_TURNED] for place, ratio in panel.lines.items())
        return [entry("dotted: den < 0, convex means ratio ≤ 1", GREY, _TURNED)] if turned else []

    return figure_of(together, list(parts.values()), lines, dress)


def split(ratio: Series, den: Series) -> dict[str, Series]:
    """The ratio by line style: where its denominator is positive, and where it is negative."""
    negative = den.values < 0
    return {
        "-": ratio._replace(values=np.where(negative, np.nan, ratio.values)),
        _TURNED: ratio._replace(values=np.where(negative, ratio.values, np.nan)),
    }


PICTURE = Picture(
    "convexity_ratio",
    "Convexity ratio",
    "num/den towards x*, both summed from each run's start over its rows with their weights, one sample to a panel. "
    "Where den > 0, convex functions give at least 1, weakly quasi-convex ones 0 to 1, below 0 is strongly "
    "non-convex, and a saddle can give 2. Lines are dotted where den < 0 and the inequality turns round, and break "
    "where |den| is below its resolution (on probe batches: its standard error).",
    _draw,
)

"""Rows as points coloured by step, beneath the envelope that was fitted to them, the constant one, and the null's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import WIDE
from trajcheck.reports.figures.drawing.labels import labels_at_right
from trajcheck.reports.figures.drawing.steps_in_colours import STEP_COLOURS
from trajcheck.reports.figures.drawing.style import BLACK, GREY, VERMILLION, WIDTH

#: Height in inches of a panel, and decades from which float64 has no room for margins and ticks beyond.
_HEIGHT, _WHOLE = 3.2, 200.0


@dataclass(frozen=True)
class Panel:
    """`steps`, `across` and `up` [rows]: the points. `envelope` and `null` are lines, (value at 0, slope), `null` None
    where it is not known; `words` and `null_words` stand beside them, `title` above."""

    steps: np.ndarray
    across: np.ndarray
    up: np.ndarray
    envelope: tuple[float, float]
    words: str
    null: tuple[float, float] | None
    null_words: str
    title: str


def draw_panels(panels: Sequence[Panel], across: str, up: str) -> Figure:
    """One beneath another, with a common bar of colours; `across` and `up` name the axes."""
    figure = Figure(figsize=(WIDTH, _HEIGHT * len(panels) + 0.5), layout="constrained")
    axes = list(figure.subplots(len(panels), 1, squeeze=False)[:, 0])
    steps = np.concatenate([each.steps for each in panels])
    for ax, each in zip(axes, panels, strict=True):
        points = ax.scatter(each.across, each.up, s=11, linewidth=0, c=each.steps, cmap=STEP_COLOURS, zorder=3)
        points.set_clim(steps.min(), steps.max())
        _scales(ax, each)
        _lines(ax, each)
        ax.set_title(each.title, loc="left")
        ax.set_ylabel(up)
    axes[-1].set_xlabel(across)
    bar = figure.colorbar(points, ax=axes, location="top", aspect=60, shrink=0.5, anchor=(0.0, 0.5), pad=0.02)
    bar.set_label("step $t$", loc="left")
    return figure


def _scales(ax: Axes, each: Panel) -> None:
    """Logarithmic across where positive values span decades, and up where they do, or it is so across and they span
    one: a line is a curve then, and its foot is where most points are."""
    across, up = (
        np.log10(values.max()) - np.log10(values.min()) if values.min() > 0 else 0.0
        for values in (each.across, each.up)
    )
    ax.margins(x=0.03)
    if np.log10(WIDE) < across < _WHOLE:
        ax.set_xscale("log")
    if (1.0 if ax.get_xscale() == "log" else np.log10(WIDE)) < up < _WHOLE:
        ax.set_yscale("log")


def _lines(ax: Axes, each: Panel) -> None:
    low, high = each.across.min(), each.across.max()
    x = np.geomspace(low, high, 200) if ax.get_xscale() == "log" else np.linspace(low, high, 200)
    alone = each.up.max()
    lines = [
        (np.full_like(x, alone), GREY, "--", f"constant: {alone:.3g}"),
        (each.envelope[0] + each.envelope[1] * x, BLACK, "-", each.words),
    ]
    if each.null is not None:
        lines.insert(1, (each.null[0] + each.null[1] * x, VERMILLION, ":", each.null_words))
    for values, color, style, _ in lines:
        ax.plot(x, values, color=color, linestyle=style, linewidth=1.4, zorder=2)
    rests = np.isclose(each.envelope[0] + each.envelope[1] * each.across, each.up, rtol=1e-6, atol=0)
    ax.scatter(each.across[rests], each.up[rests], s=49, facecolor="none", edgecolor=BLACK, linewidth=0.9, zorder=4)
    labels_at_right(ax, [(float(values[-1]), words, color) for values, color, _, words in lines])

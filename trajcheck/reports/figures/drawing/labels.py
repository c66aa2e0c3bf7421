"""Labels beside the ends of lines, at the right of a panel, moved apart where they would overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

#: Points from a line of text to the next, and from the panel to the text.
LINE, OFF = 10.0, 5.0
_SIZE = 7.5


def labels_at_right(ax: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """(height in data, words, colour) each; call it when the panel's scale is final."""
    ax.autoscale_view()
    height = ax.get_window_extent().height * 72.0 / ax.figure.dpi
    places = ax.transAxes.inverted().transform(ax.transData.transform([(1.0, level) for level, *_ in labels]))[:, 1]
    lines = [words.count("\n") + 1 for _, words, _ in labels]
    order = np.argsort(places, kind="stable")
    spread = spaced([places[k] * height for k in order], [LINE * lines[k] for k in order], height)
    for k, place in zip(order, spread, strict=True):
        _, words, color = labels[k]
        ax.annotate(
            words, (1.0, place / height), (OFF, 0), xycoords="axes fraction", textcoords="offset points",
            va="center", ha="left", color=color, fontsize=_SIZE, annotation_clip=False,
        )  # fmt: skip


def spaced(places: Sequence[float], sizes: Sequence[float], height: float) -> list[float]:
    """Centres near `places`, ascending, of boxes of `sizes` that do not overlap, within 0 to `height` if they fit."""
    found, bottom, top = list(places), 0.0, height
    for k, size in enumerate(sizes):
        found[k] = max(found[k], bottom + size / 2)
        bottom = found[k] + size / 2
    for k in reversed(range(len(found))):
        found[k] = min(found[k], top - sizes[k] / 2)
        top = found[k] - sizes[k] / 2
    return found

"""Lines that lie beneath equal ones are made visible: wide and pale, for as long as another covers them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

#: Neighbouring values that a stretch has, at the least, and the share of a line's values that must be covered for it to
#: count: one that is seen elsewhere is followed through a crossing.
STRETCH, SHARE = 4, 0.7

#: How many points wider than itself a covered line is drawn, and how pale.
WIDER, PALE = 1.7, 0.35


def uncover(figure: Figure) -> bool:
    """Draw what is covered anew, in every panel; True where there was any. The panels' scales are set before."""
    found = False
    for ax in figure.axes:
        ax.get_xlim(), ax.get_ylim()  # which brings the scale up to date
        lines = [each for each in ax.lines if _of_values(each, ax)]
        order = sorted(range(len(lines)), key=lambda n: (lines[n].get_zorder(), n))
        ranked = [lines[n] for n in order]
        covered = {below: _covered(below, ranked[n + 1 :], ax) for n, below in enumerate(ranked)}
        for below, (rows, over) in covered.items():
            if rows.any():
                _draw_wide(ax, below, rows, over)
                found = True
    return found


def _of_values(line: Line2D, ax: Axes) -> bool:
    """Whether it is a column's: neither a mark nor a level."""
    return line.get_linestyle() != "None" and line.get_transform() == ax.transData and np.size(line.get_xdata()) > 2


def _covered(below: Line2D, above: list[Line2D], ax: Axes) -> tuple[np.ndarray, int]:
    """The rows of a line on which those drawn later lie over it, in stretches, and how many such lines there are."""
    x, y = _points(below, ax)
    rows, over = np.zeros(len(x), dtype=bool), 0
    for other in above:
        if not _hides(other, below):
            continue
        far_x, far_y = _points(other, ax)
        place = np.minimum(np.searchsorted(far_x, x), len(far_x) - 1)
        with np.errstate(invalid="ignore"):
            near = (np.abs(far_x[place] - x) < 0.1) & (np.abs(far_y[place] - y) < max(0.6, other.get_linewidth() / 2))
        rows |= near
        over += bool(near.any())
    rows = _stretches(rows, STRETCH)
    return (rows if rows.sum() > SHARE * np.isfinite(y).sum() else np.zeros_like(rows)), over


def _hides(above: Line2D, below: Line2D) -> bool:
    """Through the gaps of a broken line another shows, if it is whole and of another colour."""
    whole = above.get_linestyle() == "-"
    alike = above.get_color() == below.get_color() or above.get_linestyle() == below.get_linestyle()
    return whole or alike


def _points(line: Line2D, ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Where its values stand, in points of 1/72 inch."""
    dpi = ax.figure.dpi
    values = np.column_stack([line.get_xdata(), line.get_ydata()]).astype(np.float64)
    with np.errstate(all="ignore"):
        places = ax.transData.transform(values) * 72.0 / dpi
    return places[:, 0], np.where(np.isfinite(values[:, 1]), places[:, 1], np.nan)


def _stretches(rows: np.ndarray, least: int) -> np.ndarray:
    """`rows` without stretches of fewer than `least`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
    kept = np.zeros(len(rows), dtype=bool)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        kept[start:end] = end - start >= least
    return kept


def _draw_wide(ax: Axes, below: Line2D, rows: np.ndarray, over: int) -> None:
    """`over` lines lie on it: the lowest is the widest, so that of three equal ones each is seen."""
    values = np.where(rows, np.asarray(below.get_ydata(), dtype=np.float64), np.nan)
    ax.plot(
        below.get_xdata(),
        values,
        color=below.get_color(),
        linewidth=below.get_linewidth() + WIDER * min(over, 3),
        alpha=PALE,
        zorder=below.get_zorder() - 0.5,
        solid_capstyle="butt",
        scalex=False,
        scaley=False,
    )

"""Legends that show what is drawn: a line where there is one, a mark where values stand alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from trajcheck.reports.figures.drawing.beneath import uncover
from trajcheck.reports.figures.drawing.style import GREY, MARKS


def entry(label: str, color: str, style: str = "-", **more: Any) -> Line2D:
    """A legend's entry for a line."""
    return Line2D([], [], color=color, linestyle=style, label=f" {label}", **more)


def patch(label: str, **style: Any) -> Patch:
    """A legend's entry for a shaded stretch."""
    return Patch(label=f" {label}", linewidth=0, **style)


def not_drawn(shown: int, of: int, what: str = "references") -> list[Line2D | Patch]:
    """A legend's entry that says that a figure shows the first few only; none where it shows all."""
    return [] if shown >= of else [entry(f"the first {shown} of {of} {what} are drawn", GREY, "none")]


def legend(figure: Figure, entries: Sequence[Line2D | Patch], columns: int = 3) -> None:
    """One legend beneath the panels, where it hides nothing. Call it when all is drawn: lines that lie beneath others
    are uncovered, and an entry becomes a mark where no two values of its line are neighbours."""
    if not entries:
        return
    shown = [_as_drawn(each, figure) for each in entries]
    if uncover(figure):
        shown.append(entry("wide and pale: beneath an equal line", GREY, linewidth=4, alpha=0.35))
    widest = max(len(re.sub(r"\\[a-z]+|[{}$_^]", "", str(each.get_label()))) for each in shown)
    columns = max(1, min(columns, len(shown), 110 // (widest + 8)))
    figure.legend(handles=shown, loc="outside lower center", ncols=columns)


def _as_drawn(each: Line2D | Patch, figure: Figure) -> Line2D | Patch:
    """The entry itself, or with the mark of the values in its place where it stands for a line that is drawn nowhere.

    It stands for lines of its colour, in its style if any are; a key of styles stands for those of its style.
    """
    if not isinstance(each, Line2D) or each.get_linestyle() == "None":
        return each
    drawn = [line for ax in figure.axes for line in ax.lines if line.get_transform() == ax.transData]
    lines = [line for line in drawn if line.get_linestyle() != "None"]
    coloured = [line for line in lines if line.get_color() == each.get_color()]
    styled = [line for line in coloured or lines if line.get_linestyle() == each.get_linestyle()]
    meant = styled or coloured
    if not meant or any(_joined(line) for line in meant):
        return each
    if each.get_marker() not in ("None", ""):
        each.set_linestyle("None")
        return each
    marks = [line for line in drawn if line.get_marker() not in ("None", "") and line.get_color() == each.get_color()]
    marks.sort(key=lambda line: line.get_marker() != MARKS.get(str(each.get_linestyle())))
    if marks:
        each.set_linestyle("None")
        each.set_marker(marks[0].get_marker())
        each.set_markersize(3.5)
        each.set_markerfacecolor(marks[0].get_markerfacecolor())
    return each


def _joined(line: Line2D) -> bool:
    """Whether two values of a line are neighbours, so that there is something to see between them."""
    here = np.isfinite(np.asarray(line.get_ydata(), dtype=np.float64))
    return bool((here[1:] & here[:-1]).any())

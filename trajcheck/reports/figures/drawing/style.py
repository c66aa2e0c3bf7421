"""What all figures have in common: colours that the colour-blind can tell apart, fonts, sizes, names of references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trajcheck.readable import plain

#: Okabe and Ito's colours ("Color universal design", 2008) without yellow, which is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE, BLACK = COLOURS
GREY, PALE = "#666666", "#D9D9D9"

#: The most references, or other runs, that one figure tells apart.
MOST = len(COLOURS)

#: Line styles by sample, and the marks of single points that go with them.
DASHES = {"own": "-", "probe": "--", "full": "-.", "previous": ":"}
MARKS = {"-": "o", "--": "s", "-.": "^", ":": "v", "none": "o"}

#: Width in inches of a figure, and the height of one panel.
WIDTH, HEIGHT = 7.2, 2.7

#: Of bitmaps.
DPI = 160

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.facecolor": "white",
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "path",
    "svg.hashsalt": "trajcheck",
    "axes.unicode_minus": True,
}


def short(name: str, length: int = 30) -> str:
    """A name as a legend can show it: its end where it is long, nothing that is not printable, no mathematics."""
    text = plain(name)
    text = text if len(text) <= length else "…" + text[1 - length :]
    return text.replace("$", r"\$") or "(no name)"


def told_apart(names: Sequence[str]) -> list[str]:
    """The names that one figure can show: the first ones."""
    return list(names[:MOST])

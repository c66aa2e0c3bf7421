"""A bitmap and a drawing made in one walk are those that matplotlib makes in two."""

from __future__ import annotations

import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from trajcheck.reports.figures.drawing.style import DPI, RC
from trajcheck.reports.figures.two_formats import has_bitmaps, png_and_svg

METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def figure() -> Figure:
    """Lines, marks, bands, errors, a legend, mathematics, a logarithmic axis, a clip path, an image and scattered
    points: every call that a renderer gets."""
    made = Figure(figsize=(4, 3), dpi=DPI)
    FigureCanvasAgg(made)
    left, right = made.subplots(1, 2)
    x = np.linspace(0.1, 3, 40)
    left.plot(x, np.exp(x), marker="o", label=r"$e^{x_t}$")
    left.fill_between(x, np.exp(x) / 2, np.exp(x) * 2, alpha=0.2)
    left.errorbar(x[::9], x[::9], 0.1, fmt="s")
    left.set_yscale("log")
    left.legend()
    right.scatter(x, x**2, c=x)
    (line,) = right.plot(x, 3 * x)
    line.set_clip_path(Circle((1.5, 4), 1, transform=right.transData))
    right.imshow(np.arange(6.0).reshape(2, 3), extent=(0, 1, 6, 8), aspect="auto")
    right.set_xlabel("step $t$")
    return made


@pytest.fixture
def made() -> Figure:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        return figure()


def in_one(made: Figure, form: str) -> bytes:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        if form == "both":
            both = png_and_svg(made, DPI, METADATA)
            return both["png"] + both["svg"]
        buffer = io.BytesIO()
        made.savefig(buffer, format=form, dpi=DPI, metadata=METADATA[form])
        return buffer.getvalue()


def test_both_are_what_two_walks_make(made: Figure) -> None:
    png, both = in_one(made, "png"), in_one(made, "both")
    assert both.startswith(png)
    ours, theirs = both[len(png) :].decode(), in_one(made, "svg").decode()
    images = re.compile(r'xlink:href="data:[^"]*"|(?:xlink:href="|url\()#\w+|id="\w+"')
    (ours, theirs) = (images.sub("", each) for each in (ours, theirs))
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
    assert number.sub("#", ours.split("<image")[0]) == number.sub("#", theirs.split("<image")[0])
    mine, usual = (np.array(number.findall(each.split("<image")[0]), float) for each in (ours, theirs))
    assert np.abs(mine - usual).max() < 1.0  # points; words are fitted to the bitmap's


def test_what_is_a_bitmap_in_a_drawing_takes_two_walks(made: Figure) -> None:
    assert not has_bitmaps(made)
    made.axes[1].pcolormesh(np.ones((2, 2)), rasterized=True)
    assert has_bitmaps(made)

"""From a saved report to picture files, and reasons for those that are left out."""

from __future__ import annotations

import gc
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from trajcheck.reports.figures.catalogue import PICTURES, chosen
from trajcheck.reports.figures.drawing.style import DPI, RC
from trajcheck.reports.figures.picture import ALL, NothingToDraw, Picture
from trajcheck.reports.figures.two_formats import has_bitmaps, png_and_svg
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.reading.several_reports import Together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Without dates, so that the same columns give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}

#: The readers of formulas of the first figure, which remember those that they have read.
_READERS: dict[str, Any] = {}


@dataclass(frozen=True)
class Drawn:
    """`pictures` that were drawn, `files` {name: {format: bytes}}, `left_out` {title: reason}, and those of the kind
    that were `not_asked` for."""

    pictures: list[Picture] = field(default_factory=list)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    not_asked: list[Picture] = field(default_factory=list)


def draw(report: SavedReport | Together, formats: Sequence[str], figures: Sequence[str] = (ALL,)) -> Drawn:
    """Those `figures` of the report's kind, or of several reports, in every format. Raises UsageError."""
    pictures = chosen(report.kind, figures)
    drawn = Drawn(not_asked=[each for each in PICTURES[report.kind] if each not in pictures])
    with _styled(), _garbage_kept():
        for picture in pictures:
            try:
                figure = picture.draw(report)
            except NothingToDraw as nothing:
                drawn.left_out[picture.title] = str(nothing)
                continue
            _lay_out(figure)
            drawn.pictures.append(picture)
            drawn.files[picture.name] = _files(figure, formats)
    return drawn


def one(picture: Picture, report: SavedReport) -> Figure:
    """One figure, which shows itself in a notebook. Raises NothingToDraw."""
    with _styled():
        figure = picture.draw(report)
    figure.__dict__["_repr_png_"] = partial(png, figure)
    return figure


def png(figure: Figure) -> bytes:
    with _styled():
        return _bytes(figure, "png")


@contextmanager
def _styled() -> Iterator[None]:
    # Margins around values near the largest number overflow, harmlessly.
    with matplotlib.rc_context(), warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        matplotlib.rcdefaults()  # not what lies in the working folder, nor the caller's own style
        matplotlib.rcParams.update(RC)
        # Names of references and tensors may hold any letter; one that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Figures are made of many small objects, after each few of which all that torch and pandas made would be looked
    through: a sixth of the time of drawing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _lay_out(figure: Figure) -> None:
    """Once for all formats, by the canvas of the bitmap, which then has measured its words. Formulas are read once for
    all figures. Frames lie within the words of their axes: to ask how far each reaches, ticks are made anew."""
    canvas = FigureCanvasAgg(figure)  # the figure's from here on
    renderer: Any = canvas.get_renderer()
    renderer.mathtext_parser = _READERS.setdefault("bitmaps", renderer.mathtext_parser)
    ax: Any
    for ax in figure.axes:
        ax._autotitlepos = False  # no axis is above its panel
        for spine in ax.spines.values():
            spine.set_in_layout(False)
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    figure.set_layout_engine(None)


def _files(figure: Figure, formats: Sequence[str]) -> dict[str, bytes]:
    """A figure in some formats, those that can be in one walk."""
    made = png_and_svg(figure, DPI, _METADATA) if {"png", "svg"} <= {*formats} and not has_bitmaps(figure) else {}
    return {each: made[each] if each in made else _bytes(figure, each) for each in formats}


def _bytes(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DPI, metadata=_METADATA[form])
    return buffer.getvalue()

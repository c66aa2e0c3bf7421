"""A bitmap and a drawing of one figure in one walk over it: most of the time of a figure is in asking its artists."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from functools import cache
from typing import Any

from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.path import Path
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Affine2D, Bbox, Transform, TransformedPath

#: Units of an SVG to the inch.
UNITS = 72.0


def png_and_svg(figure: Figure, dpi: float, metadata: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """The bytes of a figure that is laid out, by format; `metadata` are those of each. Words stand where the bitmap's
    letters, which are fitted to its points, put them."""
    if figure.dpi != dpi:
        figure.set_dpi(dpi)
    canvas = figure.canvas  # that of the layout knows how wide words are
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    bitmap = canvas.get_renderer()
    bitmap.clear()
    width, height = figure.get_size_inches()
    drawing, picture = io.BytesIO(), io.BytesIO()
    text: Any = codecs.getwriter("utf-8")(drawing)
    svg = RendererSVG(width * UNITS, height * UNITS, text, image_dpi=figure.dpi, metadata=metadata["svg"])
    svg._text2path = _letters()
    figure.draw(_Both(bitmap, svg, UNITS / figure.dpi))
    svg.finalize()
    imsave(picture, bitmap.buffer_rgba(), format="png", origin="upper", dpi=figure.dpi, metadata=metadata["png"])
    return {"png": picture.getvalue(), "svg": drawing.getvalue()}


@cache
def _letters() -> TextToPath:
    """From words to outlines, which remembers the formulas of figures before."""
    return TextToPath()


def has_bitmaps(figure: Figure) -> bool:
    """Whether parts of a figure are bitmaps in a drawing too (`rasterized`), which one walk cannot make."""
    return any(artist.get_rasterized() for ax in figure.axes for artist in ax.get_children())


class _Both(RendererBase):
    """Hands to the drawing what it hands to the bitmap, `scale` times as large: artists measure by the bitmap alone."""

    def __init__(self, bitmap: RendererAgg, svg: RendererSVG, scale: float) -> None:
        super().__init__()
        self._bitmap, self._svg, self._scale = bitmap, svg, scale
        self._smaller = Affine2D().scale(scale)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bitmap, name)  # what is of bitmaps alone

    # -- measures -----------------------------------------------------------------------------------------------------

    def get_canvas_width_height(self) -> tuple[float, float]:
        return self._bitmap.get_canvas_width_height()

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        return self._bitmap.get_text_width_height_descent(s, prop, ismath)

    def points_to_pixels(self, points: Any) -> Any:
        return self._bitmap.points_to_pixels(points)

    def flipy(self) -> bool:
        return True

    def new_gc(self) -> GraphicsContextBase:
        return self._bitmap.new_gc()

    # -- drawing ------------------------------------------------------------------------------------------------------

    def open_group(self, s: str, gid: str | None = None) -> None:
        self._svg.open_group(s, gid)

    def close_group(self, s: str) -> None:
        self._svg.close_group(s)

    def draw_path(self, gc: Any, path: Path, transform: Transform, rgbFace: Any = None) -> None:
        self._bitmap.draw_path(gc, path, transform, rgbFace)
        self._svg.draw_path(self._context(gc), path, transform + self._smaller, rgbFace)

    def draw_markers(
        self, gc: Any, marker_path: Path, marker_trans: Transform, path: Path, trans: Transform, rgbFace: Any = None
    ) -> None:
        self._bitmap.draw_markers(gc, marker_path, marker_trans, path, trans, rgbFace)
        smaller = self._smaller
        self._svg.draw_markers(self._context(gc), marker_path, marker_trans + smaller, path, trans + smaller, rgbFace)

    def draw_path_collection(
        self,
        gc: Any,
        master_transform: Transform,
        paths: Any,
        all_transforms: Any,
        offsets: Any,
        offset_trans: Transform,
        *more: Any,
        **named: Any,
    ) -> None:
        self._some(
            "draw_path_collection", gc, master_transform, (paths, all_transforms, offsets), offset_trans, more, named
        )

    def draw_quad_mesh(
        self,
        gc: Any,
        master_transform: Transform,
        meshWidth: Any,
        meshHeight: Any,
        coordinates: Any,
        offsets: Any,
        offsetTrans: Transform,
        *more: Any,
        **named: Any,
    ) -> None:
        mesh = meshWidth, meshHeight, coordinates, offsets
        self._some("draw_quad_mesh", gc, master_transform, mesh, offsetTrans, more, named)

    def _some(
        self, name: str, gc: Any, transform: Transform, what: Any, offset: Transform, more: Any, named: Any
    ) -> None:
        into: Callable[..., None] = getattr(self._bitmap, name)
        into(gc, transform, *what, offset, *more, **named)
        into = getattr(self._svg, name)
        into(self._context(gc), transform + self._smaller, *what, offset + self._smaller, *more, **named)

    def draw_image(self, gc: Any, x: float, y: float, im: Any, transform: Any = None) -> None:
        self._bitmap.draw_image(gc, x, y, im)  # without a transform: bitmaps are scaled beforehand
        self._svg.draw_image(self._context(gc), x * self._scale, y * self._scale, im)

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False, mtext: Any = None
    ) -> None:
        self._bitmap.draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        self._svg.draw_text(self._context(gc), x * self._scale, y * self._scale, s, prop, angle, ismath, mtext)

    def _context(self, gc: Any) -> Any:
        """As the drawing has it: what is clipped away is told in its units."""
        rectangle, (path, transform) = gc.get_clip_rectangle(), gc.get_clip_path()
        if rectangle is None and path is None:
            return gc
        smaller = GraphicsContextBase()
        smaller.copy_properties(gc)
        if rectangle is not None:
            smaller.set_clip_rectangle(Bbox(rectangle.get_points() * self._scale))
        if path is not None:
            smaller.set_clip_path(TransformedPath(path, transform + self._smaller))
        return smaller

"""Heat maps of single tensors over the steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from trajcheck.reports.figures.drawing.axes import WIDE, finish, halfway, title
from trajcheck.reports.figures.drawing.decades import SpacedDecades
from trajcheck.reports.figures.drawing.style import GREY, WIDTH, short
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

#: The most tensors whose names are written, and the most heat maps.
NAMED, MAPS = 24, 6

#: Of the path itself, and towards references: column, label, what its values are.
_OWN = (
    ("grad_norm", r"$|g_t|$ [loss/length]", "positive"),
    ("inst_smooth", r"inst_smooth towards $x_{t-1}$ [loss/length²]", "positive"),
    ("update_corr", r"update_corr $\langle g_t,d_t\rangle$ [loss]", "signed"),
)
_TOWARDS = (("cos", r"$\cos(g_t,x_t-x^*)$ towards ", "cosine"),)
_COMPARED = (("dist", r"$|x_a-x_b|$, b: ", "positive"), ("displacement_cos", "cosine of displacements, b: ", "cosine"))


class _Map(NamedTuple):
    title: str
    steps: np.ndarray  # or times
    tensors: list[str]
    values: np.ndarray  # [tensors, steps]
    kind: str  # positive, signed or cosine


def _draw(report: SavedReport) -> Figure:
    if "layers" not in report.tables:
        raise NothingToDraw("tensor by tensor was not asked for: give --layers")
    every = _maps(report)
    if not every:
        raise NothingToDraw(report.why_empty("grad_norm", "cos", "dist"))
    maps = every[:MAPS]
    rows = min(NAMED, max(len(each.tensors) for each in maps))
    height = max(1.3, 0.09 * rows + 0.75)
    figure = Figure(figsize=(WIDTH, height * len(maps) + 0.3), layout="constrained")
    axes = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
    for ax, each in zip(axes, maps, strict=True):
        _heat(figure, ax, each)
        finish(ax, "", steps=ax is axes[-1], along=report.along)
    if len(maps) < len(every):
        figure.supxlabel(f"the first {len(maps)} of {len(every)} maps are drawn", fontsize=8, color=GREY)
    return figure


def _maps(report: SavedReport) -> list[_Map]:
    frame = report.tables["layers"]
    if report.kind == "comparison":
        wanted = [
            (frame[frame["run_b"] == run], "step_a", column, label + short(run), kind)
            for run in report.others
            for column, label, kind in _COMPARED
        ]
    else:
        frame = frame[frame["sample"] == report.samples[0]]
        wanted = [
            *(
                (frame[frame["ref"] == ref], "step", column, label + short(ref), kind)
                for ref in report.references
                for column, label, kind in _TOWARDS
            ),
            *((frame[frame["ref"] == ""], "step", column, label, kind) for column, label, kind in _OWN),
        ]
    return [_map(report, rows, *rest) for rows, *rest in wanted if rest[1] in rows and rows[rest[1]].notna().any()]


def _map(report: SavedReport, rows: pd.DataFrame, step: str, column: str, title: str, kind: str) -> _Map:
    tensors = list(dict.fromkeys(rows["tensor"]))
    steps = np.unique(rows[step].to_numpy(dtype=np.float64))
    values = np.full((len(tensors), len(steps)), np.nan)
    place = {tensor: number for number, tensor in enumerate(tensors)}
    columns = np.searchsorted(steps, rows[step].to_numpy(dtype=np.float64))
    values[[place[tensor] for tensor in rows["tensor"]], columns] = rows[column].to_numpy(dtype=np.float64)
    return _Map(title, report.along_axis(steps), tensors, values, kind)


def _heat(figure: Figure, ax: Axes, each: _Map) -> None:
    count = len(each.tensors)
    mesh = ax.pcolormesh(
        halfway(each.steps),
        np.arange(count + 1) - 0.5,
        np.ma.masked_invalid(each.values),
        norm=_norm(each.values, each.kind),
        cmap="viridis" if each.kind == "positive" else "RdBu_r",
        rasterized=True,
    )
    ax.set_facecolor("#CCCCCC")
    ax.grid(False)
    ax.invert_yaxis()
    every = -(-count // NAMED)
    size = 7 if count <= NAMED // 2 else 5
    ax.set_yticks(range(0, count, every), [short(name, 26) for name in each.tensors[::every]], fontsize=size)
    more = "" if every == 1 else f" (one in {every} of {count} tensors is named)"
    title(ax, each.title + more)
    bar = figure.colorbar(mesh, ax=ax, pad=0.01, aspect=12)
    if isinstance(mesh.norm, SymLogNorm):
        bar.ax.yaxis.set_major_locator(SpacedDecades(mesh.norm.linthresh))
        bar.ax.yaxis.set_minor_locator(NullLocator())


def _norm(values: np.ndarray, kind: str) -> Normalize:
    """Symmetric about 0 for values with signs, logarithmic over a wide range; cosines are always linear."""
    nonzero = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(nonzero):
        return Normalize(0, 1) if kind == "positive" else Normalize(-1, 1)
    top = float(nonzero.max())
    if kind == "cosine":
        return Normalize(-top, top)
    if kind == "signed":
        middle = float(np.median(nonzero))
        return SymLogNorm(middle, vmin=-top, vmax=top) if top > WIDE * middle else Normalize(-top, top)
    low = float(nonzero.min())
    if top > WIDE * low:
        return LogNorm(max(low, 1e-6 * top), top)
    return Normalize(0, top)


PICTURE = Picture(
    "layers",
    "Tensor by tensor",
    "Steps to the right, tensors downwards, on the report's first sample; grey cells are undefined. Each map has its "
    "own scale; those with signs are centred at 0. A cell reaches half way to the neighbouring records.",
    _draw,
    place=110,
    kinds=("analysis", "comparison"),
)

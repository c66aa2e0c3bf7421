"""Who lowered the loss: what each tensor made of its change, one above the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trajcheck.reports.figures.drawing.axes import finish, panels, title, zero
from trajcheck.reports.figures.drawing.legends import entry, legend, patch
from trajcheck.reports.figures.drawing.style import BLACK, COLOURS, PALE, short
from trajcheck.reports.figures.picture import NothingToDraw, Picture
from trajcheck.reports.reading.report import SavedReport

#: So many tensors have a colour of their own, the largest ones; the others are one.
NAMED = COLOURS[:-1]

_ON = {
    "previous": "sample previous: the batch that made the update, which it flatters",
    "own": "sample own: the next step's batch",
    "probe": "sample probe",
    "full": "sample full",
}


class _Stack(NamedTuple):
    """`sums` [tensors, steps] of the largest tensors, the last row the sum of all others where there are any."""

    steps: np.ndarray
    names: list[str]
    sums: np.ndarray


def _draw(report: SavedReport) -> Figure:
    if "allocation" not in report.tables:
        raise NothingToDraw("what tensors make of the loss's change was not asked for: give --allocate")
    tables = {sample: _sums(report, sample) for sample in report.samples}
    tables = {sample: each for sample, each in tables.items() if each.size}
    order = _by_size(list(tables.values())[-1]) if tables else []
    stacks = {sample: _stack(each[order]) for sample, each in tables.items()}
    if not stacks:
        raise NothingToDraw(report.why_empty("allocation_sum"))
    figure, axes = panels(len(stacks))
    for ax, (sample, each) in zip(axes[:, 0], stacks.items(), strict=True):
        _fill(ax, each)
        title(ax, _ON.get(sample, f"sample {sample}"))
        finish(ax, "sum of allocations [loss]", steps=ax is axes[-1, 0])
    names = next(iter(stacks.values())).names
    entries = [patch(short(name), facecolor=_colour(place)) for place, name in enumerate(names)]
    legend(figure, [*entries, entry("all tensors: the path integral", BLACK)])
    return figure


def _sums(report: SavedReport, sample: str) -> pd.DataFrame:
    """The sum up to each step [steps, tensors], on the steps on which all tensors have one."""
    frame = report.tables["allocation"]
    if "allocation_sum" not in frame:
        return pd.DataFrame()
    rows = frame[(frame["sample"] == sample) & (frame["tensor"] != "")]
    return rows.pivot(index="step", columns="tensor", values="allocation_sum").dropna()


def _by_size(sums: pd.DataFrame) -> list[str]:
    """The tensors by the largest size of their sums, largest first."""
    return list(sums.abs().max().sort_values(ascending=False, kind="stable").index)


def _stack(sums: pd.DataFrame) -> _Stack:
    order, values, steps = list(map(str, sums)), sums.to_numpy().T, sums.index.to_numpy(dtype=np.float64)
    if len(order) <= len(NAMED) + 1:
        return _Stack(steps, order, values)
    others = values[len(NAMED) :].sum(axis=0, keepdims=True)
    names = [*order[: len(NAMED)], f"the other {len(order) - len(NAMED)}, together"]
    return _Stack(steps, names, np.concatenate([values[: len(NAMED)], others]))


def _fill(ax: Axes, stack: _Stack) -> None:
    """What raised the loss upwards from 0, what lowered it downwards, each one beyond the other."""
    for sign in (1, -1):
        parts = np.where(np.sign(stack.sums) == sign, stack.sums, 0.0)
        borders = np.concatenate([np.zeros((1, parts.shape[1])), np.cumsum(parts, axis=0)])
        for place in range(len(parts)):
            if parts[place].any():
                color = _colour(place)
                ax.fill_between(stack.steps, borders[place], borders[place + 1], facecolor=color, linewidth=0)
    zero(ax)
    ax.plot(stack.steps, stack.sums.sum(axis=0), color=BLACK)
    if len(stack.steps) == 1:
        ax.plot(stack.steps, stack.sums.sum(axis=0), color=BLACK, marker="o", markersize=3)


def _colour(place: int) -> str:
    return NAMED[place] if place < len(NAMED) else PALE


PICTURE = Picture(
    "allocation",
    "Who lowered the loss",
    "The path integral of the gradient by tensor, summed over the updates: upwards what raised the loss, downwards "
    "what lowered it, so that their sum is the line. The tensors with the largest sums have a colour. The batch that "
    "made an update (sample previous) is helped by it as no other is: its own scale, and no measure of progress.",
    _draw,
    place=65,
)

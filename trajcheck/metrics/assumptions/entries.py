"""From columns to a row of assumptions.csv: a constant with its quantiles, and on which share of the steps the
inequality holds, fails, or is not decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.weights import Weights

#: A number, or the reason why there is none.
Cell = float | str

#: The numbers of a row of assumptions.csv, in its order.
SHARES = ("satisfied", "violated", "undetermined")
VALUES = ("constant", "quantile_5", "quantile_95", "median")
VERDICT = (*SHARES, "worst", "worst_step")
NUMBERS = (*VALUES, *VERDICT, "noise", "rows")

#: Those of them that are whole numbers.
WHOLE = ("worst_step", "rows")

NOT_VIOLATED = "no row violates it"
NO_NOISE = "what noise alone would give is not known"


@dataclass(frozen=True)
class Judged:
    """`margin`: at most 0 where the inequality holds, on the rows that carry it; its sign means nothing where it is
    not above `resolution`, >= 0. Both None: a row has no verdict, for the reason `unjudged`.

    `value`: the constant that a row by itself has, on the rows that have one; a reason in words where none is offered.
    `noise`: what noise alone would give for `value`, on the same rows, of which the median is shown, or why that is not
    known.
    """

    value: Column | str
    margin: Column | None = None
    resolution: Column | None = None
    noise: Column | Cell = NO_NOISE
    unjudged: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of assumptions.csv: each of NUMBERS, or the reason why there is none."""

    cells: Mapping[str, Cell] = field(default_factory=dict)

    def with_cells(self, **cells: Cell) -> Entry:
        """The same but for these."""
        return replace(self, cells={**self.cells, **cells})


def judge(judged: Judged, extreme: str, weights: Weights, steps: np.ndarray) -> Entry:
    """The row of a constant that is the `extreme` (largest, smallest) of its rows' values."""
    cells: dict[str, Cell] = {**_values(judged.value, extreme, weights), **_verdicts(judged, weights, steps)}
    cells["noise"] = median_of(judged.noise, weights) if isinstance(judged.noise, Column) else judged.noise
    carried = judged.margin if judged.margin is not None else judged.value
    cells["rows"] = 0.0 if isinstance(carried, str) else float(carried.defined.sum())
    return Entry({name: cells[name] for name in NUMBERS})


def _values(value: Column | str, extreme: str, weights: Weights) -> dict[str, Cell]:
    if isinstance(value, str):
        return dict.fromkeys(VALUES, value)
    if not value.defined.any():
        return dict.fromkeys(VALUES, why_none(value))
    known = value.values[value.defined]
    return {
        "constant": float(known.max() if extreme == "largest" else known.min()),
        **{name: quantile_of(value, q, weights) for name, q in zip(VALUES[1:], (0.05, 0.95, 0.5), strict=True)},
    }


def _verdicts(judged: Judged, weights: Weights, steps: np.ndarray) -> dict[str, Cell]:
    """Shares, and the worst violation in units of its resolution."""
    if judged.margin is None or judged.resolution is None:
        value = judged.value
        empty = isinstance(value, Column) and not value.defined.any()
        return dict.fromkeys(VERDICT, why_none(value) if empty else judged.unjudged)  # type: ignore[arg-type]
    margin = judged.margin.along(judged.resolution)
    return verdict_cells(margin, judged.resolution, weights.of(margin.defined), steps)


def verdict_cells(margin: Column, resolution: Column, weight: np.ndarray, steps: np.ndarray) -> dict[str, Cell]:
    """Those of VERDICT, of the rows with a margin and its resolution, which weigh `weight` [rows]."""
    margin = margin.along(resolution)
    if not margin.defined.any():
        return dict.fromkeys(VERDICT, why_none(margin))
    verdicts = verdicts_of(margin, resolution)
    weight = np.where(margin.defined, weight, 0.0)
    weight = weight if weight.sum() > 0 else margin.defined.astype(float)
    cells: dict[str, Cell] = {
        name: float(weight[rows].sum() / weight.sum()) for name, rows in zip(SHARES, verdicts, strict=True)
    }
    if not verdicts.violated.any():
        return {**cells, "worst": NOT_VIOLATED, "worst_step": NOT_VIOLATED}
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(verdicts.violated, margin.values / resolution.values, -np.inf)
    place = int(np.argmax(apart))
    worst = float(apart[place])
    return {
        **cells,
        "worst": worst if np.isfinite(worst) else "its resolution is 0: the violation is exact",
        "worst_step": float(steps[place]),
    }


class Verdicts(NamedTuple):
    """[rows] each; no row is in two of them, and one that carries the inequality is in one."""

    satisfied: np.ndarray
    violated: np.ndarray
    undetermined: np.ndarray


def verdicts_of(margin: Column, resolution: Column) -> Verdicts:
    """Where a margin is certainly negative, positive, or neither: not above its resolution."""
    here = margin.defined & resolution.defined
    with np.errstate(invalid="ignore"):
        open_ = here & (np.abs(margin.values) <= resolution.values)
        above = here & ~open_ & (margin.values > 0)
    return Verdicts(here & ~open_ & ~above, above, open_)


def quantile_of(value: Column, q: float, weights: Weights) -> float:
    """The smallest value below or at which at least a share q of the weight lies, over the rows that have one."""
    here = value.defined
    weight = weights.of(here)[here]
    weight = weight if weight.sum() > 0 else np.ones(len(weight))
    order = np.argsort(value.values[here], kind="stable")
    passed = np.cumsum(weight[order])
    place = int(np.searchsorted(passed, q * passed[-1] * (1 - 1e-12)))
    return float(value.values[here][order][min(place, len(order) - 1)])


def median_of(value: Column, weights: Weights) -> Cell:
    """The weighted median, or why there is none."""
    return quantile_of(value, 0.5, weights) if value.defined.any() else why_none(value)


def why_none(value: Column) -> str:
    """The most common reason of a column without a value."""
    reasons, counts = np.unique(value.reasons.astype(str), return_counts=True)
    return str(reasons[np.argmax(counts)]) if len(reasons) else "there is no row"


def with_error(resolution: Column, error: Column | None) -> Column:
    """The larger of a resolution and, over probe batches, a standard error: a margin within either is undetermined."""
    if error is None:
        return resolution
    return Column(np.fmax(resolution.values, error.values), resolution.reasons)

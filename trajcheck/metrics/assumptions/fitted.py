"""Constants that are fitted to all rows: what their rows of assumptions.csv say.

A fit meets all rows that it was made of, so that its verdict is another: constants are fitted to the rows of the first
half of the steps, and judged on those of the second. Shares are of the steps of the second half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trajcheck.metrics.assumptions.entries import VALUES, VERDICT, Cell, Entry, verdict_cells, why_none
from trajcheck.metrics.columns import Column, constant
from trajcheck.metrics.fits.envelope import NoFit, envelope_constants, upper_envelope
from trajcheck.metrics.fits.stretches import FEWEST, Interval
from trajcheck.metrics.weights import Weights

FEW = f"fewer than {FEWEST} rows have what the fit takes: it has no interval, and no null"
EXPLAINED = "explained"
SAVED = "the share of a constant bound's excess over the rows that it saves"
NOTHING_TO_SAVE = "a constant bound meets every row: nothing is left to explain"

#: Constants [k] from the rows [rows] that are True; raises NoFit.
Fit = Callable[[np.ndarray], np.ndarray]


def envelope_rows(
    names: Sequence[str],
    y: Column,
    regressors: Sequence[Column],
    resolution: Column,
    weights: Weights,
    steps: np.ndarray,
) -> dict[str, Entry]:
    """The rows of y_t <= sum c_j u_tj, u the `regressors`, one for each of `names`: the constants c, and `explained`.

    The noise of a constant is its median, that of `explained` the 95% quantile, where stretches of the regressors have
    changed places against y.
    """
    carried = y
    for each in regressors:
        carried = carried.along(each)
    here = carried.defined
    weight, u = weights.of(here), np.stack([each.values for each in regressors], axis=1)
    names = (*names, EXPLAINED)
    if not here.any():
        return refused(names, why_nowhere(y, carried), here)
    try:
        found = upper_envelope(y.values[here], u[here], weight[here])
    except NoFit as reason:
        return refused(names, str(reason), here)

    def fit(rows: np.ndarray) -> np.ndarray:
        return envelope_constants(y.values[rows], u[rows], weight[rows])

    def margin(constants: np.ndarray) -> tuple[Column, Column]:
        bound = sum((float(c) * each for c, each in zip(constants, regressors, strict=True)), constant(0.0, len(y)))
        return y - bound, resolution

    values = np.append(found.constants, found.explained)
    noise: Sequence[Cell] = [FEW] * len(names) if found.null is None else [*found.null, found.null_explained]
    why = {EXPLAINED: NOTHING_TO_SAVE}
    verdict = ahead(fit, margin, here, weight, steps)
    return fitted_rows(names, values, found.interval, noise, verdict, here, why)


def fitted_rows(
    names: Sequence[str],
    values: Sequence[float] | np.ndarray,
    interval: Interval | None,
    noise: Sequence[Cell],
    verdict: Mapping[str, Cell],
    here: np.ndarray,
    why: Mapping[str, str],
) -> dict[str, Entry]:
    """A row each of `names`, with `values` [names]; `why`, by name, one is not finite."""

    def cell(value: Cell, reason: str) -> Cell:
        return value if isinstance(value, str) else float(value) if np.isfinite(value) else reason

    found = {}
    for place, name in enumerate(names):
        reason = why.get(name, "not finite in some of the resamples")
        ends = interval and [interval.low[place], interval.high[place], interval.median[place]]
        spread = [FEW] * 3 if ends is None else [cell(each, reason) for each in ends]
        found[name] = Entry(
            {
                **dict(zip(VALUES, (cell(values[place], reason), *spread), strict=True)),
                **verdict,
                "noise": cell(noise[place], reason),
                "rows": float(here.sum()),
            }
        )
    return found


def why_nowhere(y: Column, carried: Column) -> str:
    """Why a fit has no row: what the rows with y lack, or why there is no y."""
    lack = carried.reasons[y.defined]
    return why_none(Column(carried.values[y.defined], lack) if len(lack) else y)


def refused(names: Sequence[str], reason: str, here: np.ndarray) -> dict[str, Entry]:
    """Rows that say why there is no fit."""
    cells: dict[str, Cell] = {**dict.fromkeys((*VALUES, *VERDICT, "noise"), reason), "rows": float(here.sum())}
    return {name: Entry(cells) for name in names}


def ahead(
    fit: Fit,
    margin: Callable[[np.ndarray], tuple[Column, Column]],
    here: np.ndarray,
    weight: np.ndarray,
    steps: np.ndarray,
) -> dict[str, Cell]:
    """Verdicts on the second half of the steps by the constants of the first: where `margin`, which comes with its
    resolution, is at most 0."""
    first = here & (np.cumsum(weight) <= weight.sum() / 2)
    try:
        constants = fit(first)
    except NoFit as reason:
        why = f"judged by the first half of the steps, which has no fit: {reason}"
        return dict.fromkeys(VERDICT, why)
    apart, resolution = margin(constants)
    apart = apart.except_where(~here | first, "of the half of the steps by which the other is judged")
    return verdict_cells(apart, resolution, weight, steps)

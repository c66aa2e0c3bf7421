"""The values to read first, towards one reference or the previous iterate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.shares import shares
from trajcheck.metrics.uncertainty import mean_with_error
from trajcheck.metrics.weights import Weights

#: `cosine_missing` is why there is none.
NO_COSINE: dict[str, Any] = {
    **dict.fromkeys(("cosine", "cosine_error", "cosine_of", "cosine_sample")),
    "cosine_missing": "",
}


def headline_cosine(
    free: tuple[str, Column, str],
    weights: Mapping[str, Weights],
    sample: str,
    batches: Sequence[Mapping[str, Column]] = (),
) -> dict[str, Any]:
    """The mean over the run of a cosine that holds no term of the step's own, `free` as `free_cosine` gives it.

    `weights` are those of cos_skip and of cos. Its error is by batch means over the rows; on probe batches (`batches`:
    the columns on each) it is that of the mean over batches of each one's mean over the run.
    """
    name, column, missing = free
    weighing = weights.get(name, weights["cos"])
    found = mean_with_error(column, weighing)
    if found is None:
        return {**NO_COSINE, "cosine_missing": missing}
    mean, error = found
    if batches:
        means = [mean_with_error(each[name].along(column), weighing) for each in batches]
        values = [each[0] for each in means if each]
        error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    known = {"cosine": mean, "cosine_error": error, "cosine_of": name, "cosine_sample": sample}
    return {**NO_COSINE, **known}


def headline(columns: Mapping[str, Column], weights: Weights) -> dict[str, Any]:
    """The convexity ratio with its num and den, those of the last row that has them, and the shares of rows that are
    convex, not, or undetermined, towards one reference or x_{t-1}; None where there is no value.

    On probe batches a gap within its standard error is undetermined too.
    """
    num, den, ratio = (last(columns.get(f"convexity_{name}")) for name in ("num", "den", "ratio"))
    gap, resolution = columns.get("inst_gap"), columns.get("gap_resolution")
    if gap is not None and "ref_dist" in columns:  # x* itself is neither convex nor not
        gap = gap.except_where(columns["ref_dist"].values == 0, "x_t is the reference itself")
    if resolution is not None and "inst_gap_se" in columns:
        resolution = Column(np.fmax(resolution.values, columns["inst_gap_se"].values), resolution.reasons)
    found = shares(gap, resolution, weights) if gap is not None and resolution is not None else None
    return {
        "convexity_ratio": ratio if _same_row(columns, "convexity_ratio", "convexity_den") else None,
        "convexity_num": num,
        "convexity_den": den,
        "shares": None if found is None else found.of,
    }


def last(each: Column | None) -> float | None:
    """The last defined value of a column."""
    if each is None or not each.defined.any():
        return None
    return float(each.values[each.defined][-1])


def _same_row(columns: Mapping[str, Column], *names: str) -> bool:
    """Whether the last defined values of some columns stand in one row."""
    places = {tuple(np.flatnonzero(columns[name].defined)[-1:]) for name in names if name in columns}
    return len(places) == 1

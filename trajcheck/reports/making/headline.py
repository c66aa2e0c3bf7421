"""The values to read first, towards one reference or the previous iterate, each with its errors.

Errors are of three kinds, and a name tells which: <value>_error along the path, <value>_se over probe batches,
<value>_rows_se for the choice of the rows that were recorded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.shares import shares
from trajcheck.metrics.uncertainty import draw_error, mean_with_error
from trajcheck.metrics.weights import Weights

#: `cosine_missing` is why there is none.
NO_COSINE: dict[str, Any] = {
    **dict.fromkeys(("cosine", "cosine_error", "cosine_se", "cosine_of", "cosine_sample")),
    "cosine_missing": "",
}

#: Convexity ratios by the names of their columns, with those of their num and den.
PLAIN, SKIP, CONTROLLED = "convexity_ratio", "convexity_ratio_skip", "convexity_ratio_controlled"
PARTS = {
    PLAIN: ("convexity_num", "convexity_den"),
    SKIP: ("convexity_num_skip", "convexity_den_skip"),
    CONTROLLED: ("update_corr_controlled_sum", "known_change"),
}
#: And those of their terms and weights.
TERMS = {
    PLAIN: ("num_terms", "den_terms", "terms_weights"),
    SKIP: ("skip_num_terms", "skip_den_terms", "skip_terms_weights"),
}
SE, ROWS_SE = "_se", "_rows_se"

NO_RATIO: dict[str, Any] = {
    **{f"convexity_{part}{ending}": None for part in ("ratio", "num", "den") for ending in ("", "_error", SE, ROWS_SE)},
    "convexity_of": None,
    "convexity_missing": "",
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
    known = {"cosine": mean, "cosine_of": name, "cosine_sample": sample}
    if not batches:
        return {**NO_COSINE, **known, "cosine_error": error}
    means = [mean_with_error(each[name].along(column), weighing) for each in batches]
    values = [each[0] for each in means if each]
    spread = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return {**NO_COSINE, **known, "cosine_se": spread}


def headline_ratio(columns: Mapping[str, Column], kind: str, *, along: bool, missing: str = "") -> dict[str, Any]:
    """The convexity ratio with its num and den, those of the last row that has them, towards one reference or x_{t-1};
    None where there is no value.

    `columns` are those of one table `with_hidden`; `kind` says which ratio, or `missing` why there is none. `along`:
    the rows are every step, each on its own batch, so that errors are those along the path.
    """
    num, den = PARTS[kind]
    if missing or num not in columns:
        return {**NO_RATIO, "convexity_missing": missing}
    found: dict[str, Any] = {**NO_RATIO, "convexity_of": kind}
    for short, name in (("ratio", kind), ("num", num), ("den", den)):
        if short != "ratio" or _same_row(columns, kind, den):
            found |= with_errors(columns, name, f"convexity_{short}")
    return found | (_along_the_path(columns, kind, found) if along else {})


def headline_shares(columns: Mapping[str, Column], weights: Weights) -> dict[str, Any]:
    """The shares of rows that are convex, not, or undetermined, with their errors along the path; None where there are
    none. On probe batches a gap within its standard error is undetermined too."""
    gap, resolution = columns.get("inst_gap"), columns.get("gap_resolution")
    if gap is None or resolution is None:
        return {"shares": None, "shares_error": None}
    if "ref_dist" in columns:  # x* itself is neither convex nor not
        gap = gap.except_where(columns["ref_dist"].values == 0, "x_t is the reference itself")
    if "inst_gap_se" in columns:
        resolution = Column(np.fmax(resolution.values, columns["inst_gap_se"].values), resolution.reasons)
    found = shares(gap, resolution, weights)
    return {"shares": found and found.of, "shares_error": found and found.errors}


def with_hidden(chosen: Mapping[str, Column], every: Mapping[str, Column]) -> dict[str, Column]:
    """Columns of a report, and those that it does not show but makes its headline from."""
    names = ("known_change", "known_change" + SE, *(name for names in TERMS.values() for name in names))
    return {**{name: every[name] for name in names if name in every}, **chosen}


def with_errors(
    columns: Mapping[str, Column], name: str, called: str = "", *, rows: bool = True
) -> dict[str, float | None]:
    """The last value of a column, and its errors over batches and, of `rows`, for the choice of them."""
    endings = ("", SE, ROWS_SE) if rows else ("", SE)
    return {f"{called or name}{ending}": last(columns.get(name + ending)) for ending in endings}


def _along_the_path(columns: Mapping[str, Column], kind: str, found: Mapping[str, Any]) -> dict[str, float | None]:
    """What other draws of the steps' own batches would change, at the iterates that were visited: `draw_error` of the
    terms of num and den, and of num - R den over |den|."""
    num, den, weights = (columns[name].values for name in TERMS[kind])
    here, ratio = np.isfinite(weights), found["convexity_ratio"]
    num, den, weights = num[here], den[here], weights[here]
    if not here.any():
        return {}
    errors: dict[str, float | None] = {"convexity_num_error": draw_error(num, weights)}
    if np.isfinite(den).all():  # there are losses
        errors["convexity_den_error"] = draw_error(den, weights)
    if ratio is not None:
        errors["convexity_ratio_error"] = draw_error(num - ratio * den, weights) / abs(found["convexity_den"])
    return {name: error if error is not None and math.isfinite(error) else None for name, error in errors.items()}


def last(each: Column | None) -> float | None:
    """The last defined value of a column."""
    if each is None or not each.defined.any():
        return None
    return float(each.values[each.defined][-1])


def _same_row(columns: Mapping[str, Column], *names: str) -> bool:
    """Whether the last defined values of some columns stand in one row."""
    places = {tuple(np.flatnonzero(columns[name].defined)[-1:]) for name in names if name in columns}
    return len(places) == 1

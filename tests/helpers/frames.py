"""Reading a report's tables in tests: columns that may be left out, one reference's rows, the empty cells."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trajcheck.metrics.catalogue import quantities

#: Columns that have a dense reference of their own, beside the test that is about them; dense.py has all others.
ELSEWHERE = {
    "steps": {
        *("path_integral", "path_integral_error", "window_loss_sum", "window_grad_sq_sum"),
        *("lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual"),
        *("lambda_max_error", "lambda_min_error"),
        *("loss_change_known", "update_corr_controlled_sum", "update_corr_controlled_sum_rows_se"),
        *("descent_controlled_sum", "descent_controlled_sum_rows_se"),
        *("convexity_ratio_controlled", "convexity_ratio_controlled_rows_se"),
        *("hessian_products", "grad_curvature", "stability_threshold", "replay_loss_error", "replay_grad_error"),
        *("grad_true_sq", "noise_trace", "noise_scale", "coherence", "batch_cos", "growth", "batch_grad_sq"),
    },
    "references": {
        *("lo_lr_smooth", "lr", "implied_rate", "memory_", "window_num", "window_num_skip"),
        *("rsi_wd", "eb_wd", "cos_wd"),
        *("rsi_skip", "rsi_floor", "lo_lr_skip", "convexity_num_skip", "convexity_num_floor", "convexity_ratio_skip"),
        *("convexity_den_skip", "convexity_num_skip_rows_se", "convexity_den_skip_rows_se"),
        *("convexity_ratio_skip_rows_se",),
    },
}


def _with_dense_reference(table: str) -> tuple[str, ...]:
    declared = quantities(table).items()
    names = (name for name, one in declared if not (one.hidden or one.only_of_tensor or name in ELSEWHERE[table]))
    return ("step", *names)


STEPS = _with_dense_reference("steps")
REFERENCES_IF_ASKED = ("inst_smooth", "smooth_resolution", "max_smooth", "avg_smooth", "exp_smooth")
REFERENCES = tuple(name for name in _with_dense_reference("references") if name not in REFERENCES_IF_ASKED)


def col(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column as numbers; all nan where it was left out of the table."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    return frame[name].to_numpy(dtype=np.float64)


def towards(references: pd.DataFrame, spec: str) -> pd.DataFrame:
    """The rows of one reference."""
    rows = references[references["ref"] == spec]
    assert len(rows), f"no rows for {spec}"
    return rows.reset_index(drop=True)


def assert_close(frame: pd.DataFrame, name: str, expected: np.ndarray, where: str = "", relative: float = 1e-9) -> None:
    """To `relative`, or to 1e-12 of the column's largest value where a difference cancels; empty in the same rows."""
    actual = col(frame, name)
    steps = frame["step"].to_numpy()
    wrong = np.isnan(actual) != np.isnan(expected)
    largest = np.nanmax(np.abs(expected), initial=0.0)
    wrong |= np.abs(actual - expected) > np.maximum(relative * np.abs(expected), 1e-12 * largest)
    first = ", ".join(f"step {steps[i]}: {actual[i]!r} is not {expected[i]!r}" for i in np.flatnonzero(wrong)[:4])
    assert not wrong.any(), f"{where} {name}: {wrong.sum()} of {len(wrong)} rows; {first}"


@lru_cache(maxsize=1024)
def steps_of(ranges: str) -> frozenset[int]:
    """ "0, 3-17, 20" as numbers."""
    numbers: set[int] = set()
    for part in str(ranges).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        assert match, f"not a range of steps: {part!r}"
        first = int(match[1])
        numbers |= set(range(first, int(match[2] or first) + 1))
    return frozenset(numbers)


def assert_accounted(
    undefined: pd.DataFrame,
    table: str,
    frame: pd.DataFrame,
    columns: Iterable[str],
) -> None:
    """Every empty cell of these columns is in the account with a reason, and no filled cell is."""
    keys = ["ref", "sample"] if "ref" in frame else ["sample"]
    groups = [(key, group.index, group["step"].to_numpy()) for key, group in frame.groupby(keys)]
    of_table = undefined[undefined["table"].str.removesuffix(".csv") == table].fillna("")
    entries: dict[str, list[dict[Hashable, Any]]] = {}
    for entry in of_table.to_dict("records"):
        entries.setdefault(entry["column"], []).append(entry)
    for name in columns:
        if name.endswith("_rows_se") and name not in frame:
            continue  # every step is there: nothing was chosen
        of_column = entries.get(name, [])
        assert all(str(each["reason"]).strip() for each in of_column), f"{table}.{name}: an entry without a reason"
        values = col(frame, name)
        for key, index, steps in groups:
            words = dict(zip(keys, map(str, key), strict=True))
            here = [each for each in of_column if all(each[field] in ("", word) for field, word in words.items())]
            accounted = set().union(*(steps_of(each["steps"]) for each in here))
            empty = np.isnan(values[index])
            missing = sorted({int(s) for s in steps[empty]} - accounted)
            assert not missing, f"{table}.{name} {key}: empty and not accounted for at steps {missing[:9]}"
            filled = sorted({int(s) for s in steps[~empty]} & accounted)
            assert not filled, f"{table}.{name} {key}: has a value and a reason at steps {filled[:9]}"

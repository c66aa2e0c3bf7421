"""From columns to data frames: what stands in the CSV files, and undefined.csv, which accounts for every empty cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trajcheck.columns import Column
from trajcheck.rows import runs_of_steps

INTEGERS = ("prev_step", "stride", "weight")


def table_frame(
    keys: Mapping[str, Any], columns: Mapping[str, Column], after: str | None = None, keep: Collection[str] = ()
) -> pd.DataFrame:
    """Columns as a frame, with the key columns first, but for `sample`, which may stand after another column.

    Columns that are empty throughout are left out, but for those in `keep`.
    """
    shown = {name: each for name, each in columns.items() if each.defined.any() or name in keep}
    frame = pd.DataFrame({name: _cells(name, each) for name, each in shown.items()})
    for position, (name, value) in enumerate(keys.items()):
        place = position if name != "sample" or after is None else list(frame.columns).index(after) + 1
        frame.insert(place, name, value)
    return frame


def _cells(name: str, each: Column) -> pd.Series:
    series = pd.Series(each.values)
    return series.astype("Int64") if name in INTEGERS else series


def undefined_rows(
    table: str, ref: str, sample: str, steps: Sequence[int], recorded: Sequence[int], columns: Mapping[str, Column]
) -> list[dict[str, str]]:
    """One row for each column and reason, with the steps on which the cell is empty for it."""
    rows = []
    for name, each in columns.items():
        for reason in dict.fromkeys(each.reasons[~each.defined]):
            where = [steps[int(index)] for index in np.flatnonzero(each.reasons == reason)]
            rows.append(
                {
                    "table": table,
                    "column": name,
                    "ref": ref,
                    "sample": sample,
                    "steps": runs_of_steps(where, recorded),
                    "reason": reason,
                }
            )
    return rows

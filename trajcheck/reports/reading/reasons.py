"""What undefined.csv says about single cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from trajcheck.tables.step_operands import NOT_CHOSEN


def not_asked_for(
    undefined: pd.DataFrame, table: str, column: str, steps: np.ndarray, keys: Mapping[str, str]
) -> np.ndarray:
    """The steps [n] whose cells are empty because nobody asked for the column there."""
    found = np.zeros(len(steps), dtype=bool)
    rows = undefined[(undefined["reason"] == NOT_CHOSEN) & (undefined["column"] == column)]
    for name in ("table", *keys):
        if name in rows:
            rows = rows[rows[name] == {"table": table, **keys}[name]]
    for ranges in rows.get("steps", ()):
        for each in str(ranges).split(", "):
            first, _, last = each.partition("-")
            if first.isdecimal() and (last or first).isdecimal():
                found |= (steps >= int(first)) & (steps <= int(last or first))
    return found

"""compare's tables, a row a pair, and an account of their empty cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trajcheck.metrics.columns import Column, column
from trajcheck.readable import runs_of_steps
from trajcheck.reports.making.csv_table import UNDEFINED, Part


class PairTable:
    """One CSV file: for each other run (and tensor), a row for each pair. Columns that are empty throughout are left
    out. A key is one value, or one a row."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[Part] = []

    def add(self, keys: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
        self.parts.append(Part(keys, columns))

    def frame(self) -> pd.DataFrame:
        names = self._names()
        filled = {name for part in self.parts for name, each in part.columns.items() if each.defined.any()}
        parts = []
        for part in self.parts:
            cells: dict[str, Any] = {name: part.keys[name] for name in _KEYS}
            before = [name for name in names if name in _BEFORE_INTERPOLATED]
            for name in (*before, "interpolated", *(key for key in part.keys if key not in (*_KEYS, "interpolated"))):
                cells[name] = part.keys[name] if name in part.keys else self._column(part, name).values
            for name in names:
                if name not in cells:
                    cells[name] = self._column(part, name).values
            dropped = [name for name in names if name not in filled]
            parts.append(pd.DataFrame(cells).drop(columns=dropped))
        return pd.concat(parts, ignore_index=True)

    def columns(self, part: Part) -> dict[str, Column]:
        return {name: self._column(part, name) for name in self._names()}

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for part in self.parts for name in part.columns))

    def _column(self, part: Part, name: str) -> Column:
        if name in part.columns:
            return part.columns[name]
        return column([None] * len(part.keys["step_a"]), "given for other runs only")


def undefined_cells(tables: Iterable[PairTable], recorded: Sequence[int]) -> pd.DataFrame:
    """One row for each column, other run (`ref`) and reason, with the steps of A on which the cell is empty for it.

    Where a table has rows for single tensors and only some of them are concerned, the reason names them.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    tensors: dict[str, set[str]] = {}
    for table in tables:
        for part in table.parts:
            tensor, steps = str(part.keys.get("tensor", "")), part.keys["step_a"]
            tensors.setdefault(table.name, set()).add(tensor)
            for name, each in table.columns(part).items():
                for reason in dict.fromkeys(each.reasons[~each.defined]):
                    where = [steps[int(index)] for index in np.flatnonzero(each.reasons == reason)]
                    key = (table.name, name, part.keys["run_b"], "", runs_of_steps(where, recorded), reason)
                    found.setdefault(key, []).append(tensor)
    rows = []
    for (*start, reason), concerned in found.items():
        if len(concerned) < len(tensors[start[0]]):
            more = f" and {len(concerned) - 3} more" if len(concerned) > 3 else ""
            reason = f"{reason} ({', '.join(concerned[:3])}{more})"
        rows.append((*start, reason))
    return pd.DataFrame(rows, columns=list(UNDEFINED))


#: Keys of a pair, and the columns that stand before the last of them.
_KEYS = ("run_a", "run_b", "step_a", "step_b")


_BEFORE_INTERPOLATED = ("tau_a", "tau_b", "tau_gap")

"""From columns to data frames: what stands in the CSV files, and undefined.csv, which accounts for every empty cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trajcheck.metrics.catalogue import TABLES, quantities
from trajcheck.metrics.columns import Column, column
from trajcheck.readable import plain, runs_of_steps

INTEGERS = frozenset(name for table in TABLES for name, each in quantities(table).items() if each.integer)
UNDEFINED = ("table", "column", "ref", "sample", "steps", "reason")


class TablePart(NamedTuple):
    """Rows of a table that have keys in common, one for each step. A key (ref, sample, run_b, tensor, ...) is one value
    or, as the steps are, one a row."""

    keys: Mapping[str, Any]
    columns: Mapping[str, Column]

    @property
    def steps(self) -> Sequence[int]:
        """The step of each row; of a pair, that of run A."""
        found: Sequence[int] = self.keys["step_a" if "step_a" in self.keys else "step"]
        return found

    @property
    def where(self) -> tuple[str, str]:
        """What undefined.csv calls `ref` and `sample`: towards what, and on what, the columns were measured."""
        return str(self.keys.get("ref", self.keys.get("run_b", ""))), str(self.keys.get("sample", ""))


class CsvTable:
    """One CSV file: its parts one below the other. Columns that are empty throughout are left out.

    Keys come first, but for those from the key `late` on: they stand after the last of the columns `after` that there
    are. `recorded` are all steps of the run (of run A), by which undefined.csv puts ranges of steps into words.
    """

    def __init__(self, name: str, recorded: Sequence[int], late: str = "", after: Sequence[str] = ()) -> None:
        self.name, self.recorded, self.late, self.after = name, recorded, late, after
        self.parts: list[TablePart] = []

    def add(self, keys: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
        self.parts.append(TablePart(keys, columns))

    def frame(self) -> pd.DataFrame:
        names, keys = self._filled(), list(self.parts[0].keys)
        early = keys.index(self.late) if self.late else len(keys)
        before = max((names.index(name) + 1 for name in self.after if name in names), default=0)
        order = [*keys[:early], *names[:before], *keys[early:], *names[before:]]
        cells = {name: [_cells(part, name) for part in self.parts] for name in order}
        return pd.DataFrame({name: pd.concat(values, ignore_index=True) for name, values in cells.items()})

    def columns(self, part: TablePart) -> dict[str, Column]:
        """The columns of a part, with those that only other parts have."""
        missing = {
            name: column([None] * len(part.steps), _why_missing(name, part, self.parts))
            for name in self._filled()
            if name not in part.columns
        }
        return {**part.columns, **missing}

    def _filled(self) -> list[str]:
        filled = {name for part in self.parts for name, each in part.columns.items() if each.defined.any()}
        return [name for name in _merged([list(part.columns) for part in self.parts]) if name in filled]


def _cells(part: TablePart, name: str) -> pd.Series:
    if name in part.keys:
        key = part.keys[name]
        return pd.Series(key if isinstance(key, list) else [key] * len(part.steps))
    each = part.columns.get(name)
    series = pd.Series(np.full(len(part.steps), np.nan) if each is None else each.values)
    return series.astype("Int64") if name in INTEGERS else series


def _merged(lists: Iterable[Sequence[str]]) -> list[str]:
    """All names once, each after the one that it follows in its own list."""
    result: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name in result:
                place = result.index(name) + 1
            else:
                while place < len(result) and result[place].endswith("_se") and not name.endswith("_se"):
                    place += 1  # an error stays beside its value
                result.insert(place, name)
                place += 1
    return result


def _why_missing(name: str, part: TablePart, parts: Iterable[TablePart]) -> str:
    """Why some rows of a table do not have a column at all."""
    others = [other.keys for other in parts if name in other.columns]
    if not any(keys["sample"] == part.keys["sample"] for keys in others):
        samples = ", ".join(dict.fromkeys(str(keys["sample"]) for keys in others))
        return f"given on sample {samples} only"
    return "towards references only" if not part.keys.get("ref") else "of the path itself, not towards references"


def undefined_frame(tables: Iterable[CsvTable]) -> pd.DataFrame:
    """One row for each column and reason, with the steps (of run A) on which the cell is empty for it.

    Where a table has rows for single tensors and only some of them are concerned, the reason names them.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    tensors: dict[str, set[str]] = {}
    for table in tables:
        for part in table.parts:
            tensor = str(part.keys.get("tensor", ""))
            tensors.setdefault(table.name, set()).add(tensor)
            for name, each in table.columns(part).items():
                for reason in dict.fromkeys(each.reasons[~each.defined]):
                    steps = [part.steps[int(index)] for index in np.flatnonzero(each.reasons == reason)]
                    key = (table.name, name, *part.where, runs_of_steps(steps, table.recorded), reason)
                    found.setdefault(key, []).append(tensor)
    rows = []
    for (*start, reason), concerned in found.items():
        if len(concerned) < len(tensors[start[0]]):
            more = f" and {len(concerned) - 3} more" if len(concerned) > 3 else ""
            reason += f" ({', '.join(concerned[:3])}{more})"
        rows.append((*start, plain(reason)))
    return pd.DataFrame(rows, columns=list(UNDEFINED))

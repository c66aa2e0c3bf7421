"""From columns to data frames: what stands in the CSV files, and undefined.csv, which accounts for every empty cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trajcheck.metrics.catalogue import TABLES, quantities
from trajcheck.metrics.columns import Column, column
from trajcheck.readable import runs_of_steps

INTEGERS = frozenset(name for table in TABLES for name, each in quantities(table).items() if each.integer)
UNDEFINED = ("table", "column", "ref", "sample", "steps", "reason")


class Part(NamedTuple):
    """Rows of a table that have keys (ref, sample, tensor, ...) in common, one for each step."""

    keys: Mapping[str, Any]
    columns: Mapping[str, Column]


class Table:
    """One CSV file: its parts one below the other. Columns that are empty throughout are left out.

    `sample` stands after the column `after`, if given; the other keys come first, after `step`.
    """

    def __init__(self, name: str, steps: Sequence[int], recorded: Sequence[int], after: str | None = None) -> None:
        self.name, self.steps, self.recorded, self.after = name, steps, recorded, after
        self.parts: list[Part] = []

    def add(self, keys: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
        self.parts.append(Part(keys, columns))

    def frame(self) -> pd.DataFrame:
        names = self._filled()
        keys = ["step", *self.parts[0].keys]
        if self.after in names:
            keys.remove("sample")
            names.insert(names.index(self.after) + 1, "sample")
        cells: dict[str, pd.Series] = {}
        for name in (*keys, *names):
            if name == "step":
                values = [pd.Series(self.steps)] * len(self.parts)
            elif name in self.parts[0].keys:
                values = [pd.Series([part.keys[name]] * len(self.steps)) for part in self.parts]
            else:
                values = [self._cells(part, name) for part in self.parts]
            cells[name] = pd.concat(values, ignore_index=True)
        return pd.DataFrame(cells)

    def columns(self, part: Part) -> dict[str, Column]:
        """The columns of a part, with those that only other parts have."""
        missing = {
            name: column([None] * len(self.steps), _why_missing(name, part, self.parts))
            for name in self._filled()
            if name not in part.columns
        }
        return {**part.columns, **missing}

    def _filled(self) -> list[str]:
        filled = {name for part in self.parts for name, each in part.columns.items() if each.defined.any()}
        return [name for name in _merged([list(part.columns) for part in self.parts]) if name in filled]

    def _cells(self, part: Part, name: str) -> pd.Series:
        each = part.columns.get(name)
        series = pd.Series(np.full(len(self.steps), np.nan) if each is None else each.values)
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


def _why_missing(name: str, part: Part, parts: Iterable[Part]) -> str:
    """Why some rows of a table do not have a column at all."""
    others = [other.keys for other in parts if name in other.columns]
    if not any(keys["sample"] == part.keys["sample"] for keys in others):
        samples = ", ".join(dict.fromkeys(str(keys["sample"]) for keys in others))
        return f"given on sample {samples} only"
    return "towards references only" if not part.keys.get("ref") else "of the path itself, not towards references"


def undefined_frame(tables: Iterable[Table]) -> pd.DataFrame:
    """One row for each column and reason, with the steps on which the cell is empty for it.

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
                    where = [table.steps[int(index)] for index in np.flatnonzero(each.reasons == reason)]
                    key: tuple[str, ...] = (
                        *(table.name, name, str(part.keys.get("ref", "")), str(part.keys.get("sample", ""))),
                        *(runs_of_steps(where, table.recorded), reason),
                    )
                    found.setdefault(key, []).append(tensor)
    rows = []
    for key, concerned in found.items():
        *start, reason = key
        if len(concerned) < len(tensors[key[0]]):
            more = f" and {len(concerned) - 3} more" if len(concerned) > 3 else ""
            reason += f" ({', '.join(concerned[:3])}{more})"
        rows.append((*start, reason))
    return pd.DataFrame(rows, columns=list(UNDEFINED))

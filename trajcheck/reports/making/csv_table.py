"""From columns to data frames: what stands in the CSV files, and undefined.csv, which accounts for every empty cell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trajcheck.metrics.assumptions.entries import WHOLE
from trajcheck.metrics.catalogue import TABLES, quantities
from trajcheck.metrics.columns import Column
from trajcheck.readable import plain, runs_of_steps, some_of

INTEGERS = frozenset(name for table in TABLES for name, each in quantities(table).items() if each.integer) | {*WHOLE}
UNDEFINED = ("table", "column", "ref", "sample", "steps", "reason")


class TablePart(NamedTuple):
    """Rows of a table that have keys in common, one for each step. A key (ref, sample, run_b, tensor, ...) is one value
    or, as the steps are, one a row."""

    keys: Mapping[str, Any]
    columns: Mapping[str, Column]

    @property
    def steps(self) -> Sequence[int]:
        """The step of each row; of a pair, that of run A. A row of all steps together has none."""
        found: Sequence[int] = self.keys.get("step_a", self.keys.get("step", ()))
        return found

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.steps) or max(map(len, self.columns.values()), default=0)

    @property
    def item(self) -> str:
        """What a reason names where it holds for some of a table alone: a tensor, or an assumption with its
        constant."""
        return " ".join(str(self.keys[name]) for name in ("tensor", "assumption", "parameter") if name in self.keys)

    @property
    def where(self) -> tuple[str, str]:
        """What undefined.csv calls `ref` and `sample`: towards what, and on what, the columns were measured."""
        towards = next((self.keys[name] for name in ("ref", "run_b", "average") if name in self.keys), "")
        return str(towards), str(self.keys.get("sample", ""))


class CsvTable:
    """One CSV file: its parts one below the other. Columns that are empty throughout are left out.

    Keys come first, but for those from the key `late` on: they stand after the last of the columns `after` that there
    are. `recorded` are all steps of the run (of run A), by which undefined.csv puts ranges of steps into words.
    `always`: the columns, keys too, of a table that has them all, be they empty or without a row.
    """

    def __init__(
        self,
        name: str,
        recorded: Sequence[int],
        late: str = "",
        after: Sequence[str] = (),
        always: Sequence[str] = (),
    ) -> None:
        self.name, self.recorded, self.late, self.after, self.always = name, recorded, late, after, always
        self.parts: list[TablePart] = []

    def add(self, keys: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
        self.parts.append(TablePart(keys, columns))

    def frame(self) -> pd.DataFrame:
        if not self.parts:
            return pd.DataFrame(columns=list(self.always))
        names, keys = self.filled(), list(self.parts[0].keys)
        early = keys.index(self.late) if self.late else len(keys)
        before = max((names.index(name) + 1 for name in self.after if name in names), default=0)
        order = [*keys[:early], *names[:before], *keys[early:], *names[before:]]
        return pd.DataFrame({name: self._keys(name) if name in keys else self._values(name) for name in order})

    def missing(self) -> Callable[[TablePart], dict[str, str]]:
        """Of the columns that only other parts have, why a part has them not, by name; told of one part at a time,
        once all are there."""
        filled = self.filled()
        having: dict[str, dict[str, None]] = {name: {} for name in filled}
        for part in self.parts:
            for name in having.keys() & part.columns.keys():
                having[name][part.where[1]] = None
        return lambda part: {name: _why_missing(part, having[name]) for name in filled if name not in part.columns}

    def filled(self) -> list[str]:
        """The columns with a value in any part, in order; looks through all parts."""
        found = set(self.always)
        for part in self.parts:
            found |= {name for name, each in part.columns.items() if name not in found and each.defined.any()}
        lists = dict.fromkeys(tuple(part.columns) for part in self.parts)
        return [name for name in _merged(lists) if name in found]

    def _keys(self, name: str) -> list[Any] | np.ndarray:
        keys = [(part.keys[name], len(part)) for part in self.parts]
        return [each for key, rows in keys for each in (key if isinstance(key, list) else [key] * rows)]

    def _values(self, name: str) -> np.ndarray | pd.arrays.IntegerArray:
        """NaN, or <NA> of whole numbers, where a part does not have the column."""
        columns = [(part.columns.get(name), len(part)) for part in self.parts]
        values = np.concatenate([np.full(rows, np.nan) if each is None else each.values for each, rows in columns])
        if name not in INTEGERS:
            return values
        none = np.isnan(values)
        return pd.arrays.IntegerArray(np.where(none, 1, values).astype(np.int64), none)


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


def _why_missing(part: TablePart, samples: Collection[str]) -> str:
    """Why some rows of a table do not have a column at all, which those on some samples have."""
    if part.where[1] not in samples:
        return f"given on sample {', '.join(samples)} only"
    return "towards references only" if not part.keys.get("ref") else "of the path itself, not towards references"


def undefined_frame(tables: Iterable[CsvTable]) -> pd.DataFrame:
    """One row for each column and reason, with the steps (of run A) on which the cell is empty for it.

    Where a table has rows for single tensors, or assumptions, and only some of them are concerned, the reason names
    them; of tensors the first few.
    """
    rows = []
    for table in tables:
        items = {part.item for part in table.parts}
        for (*start, reason), concerned in _undefined(table).items():
            if len(concerned) < len(items):
                reason += f" ({some_of(concerned) if table.recorded else ', '.join(concerned)})"
            rows.append((table.name, *start, plain(reason)))
    return pd.DataFrame(rows, columns=list(UNDEFINED))


def _undefined(table: CsvTable) -> dict[tuple[str, ...], list[str]]:
    """The tensors, or other items, by column, ref, sample, steps in words, and reason."""
    found: dict[tuple[str, ...], list[str]] = {}
    missing = table.missing()
    in_words: dict[tuple[int, bytes], str] = {}  # of steps, and which of them

    def steps_of(part: TablePart, where: np.ndarray) -> str:
        if not part.steps:
            return ""
        key = id(part.steps), where.tobytes()
        if key not in in_words:
            in_words[key] = runs_of_steps([part.steps[int(index)] for index in np.flatnonzero(where)], table.recorded)
        return in_words[key]

    for part in table.parts:
        reasons = [
            (name, reason, each.reasons == reason)
            for name, each in part.columns.items()
            if not each.defined.all()
            for reason in dict.fromkeys(each.reasons[~each.defined])
        ]
        everywhere = np.ones(len(part), bool)
        reasons += [(name, reason, everywhere) for name, reason in missing(part).items()]
        for name, reason, where in reasons:
            found.setdefault((name, *part.where, steps_of(part, where), reason), []).append(part.item)
    return found

"""What undefined.csv says about single cells."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from trajcheck.tables.step_operands import NOT_CHOSEN

Entry = Mapping[str, object]


class Reasons:
    """The entries of undefined.csv, which are asked for column by column many times: read from the frame once."""

    def __init__(self, undefined: pd.DataFrame) -> None:
        self._entries: list[Entry] = undefined.to_dict("records")  # type: ignore[assignment]
        self._not_chosen: dict[object, list[Entry]] = defaultdict(list)
        for entry in self._entries:
            if entry["reason"] == NOT_CHOSEN:
                self._not_chosen[entry["column"]].append(entry)

    def not_asked_for(self, table: str, column: str, steps: np.ndarray, keys: Mapping[str, str]) -> np.ndarray:
        """The steps [n] whose cells are empty because nobody asked for the column there."""
        found = np.zeros(len(steps), dtype=bool)
        wanted = {"table": table, **keys}
        for entry in self._not_chosen.get(column, ()):
            if any(entry.get(name, word) != word for name, word in wanted.items()):
                continue
            for each in str(entry.get("steps", "")).split(", "):
                first, _, last = each.partition("-")
                if first.isdecimal() and (last or first).isdecimal():
                    found |= (steps >= int(first)) & (steps <= int(last or first))
        return found

    def most_common(self, columns: Collection[str], keys: Mapping[str, str] | None = None) -> str:
        """The most common reasons of columns, at most two, of entries that have these words or an empty cell for them;
        "" where there are none."""
        wanted = {} if keys is None else keys
        found = Counter(
            str(entry["reason"])
            for entry in self._entries
            if entry["column"] in columns and all(entry.get(name, "") in ("", word) for name, word in wanted.items())
        )
        return "; ".join(reason for reason, _ in found.most_common(2))

"""What a report says of one training: columns of its tables, and what one number is made of."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.recipe import Training

#: The columns that a table's rows are known by.
KEYS = ("step", "step_a", "sample", "ref", "run_b")


class Value(NamedTuple):
    """A number over several trainings: its mean over those that have one, the standard error of that (NaN of a single
    one), how many these are, and of how many; `unbounded` of the others are infinite."""

    mean: float
    error: float
    runs: int
    of: int
    unbounded: int = 0

    @property
    def measured(self) -> bool:
        """Whether a single training has it."""
        return self.runs + self.unbounded > 0


def over(values: list[float]) -> Value:
    """The mean over trainings that have a value, and its standard error."""
    known = np.array([value for value in values if np.isfinite(value)])
    unbounded = int(np.isinf(values).sum())
    if not len(known):
        return Value(np.nan, np.nan, 0, len(values), unbounded)
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan
    return Value(float(known.mean()), error, len(known), len(values), unbounded)


class Measured:
    """A report of a training: `read` holds which columns of which tables were asked for, which are what is kept."""

    def __init__(self, training: Training, folder: Path) -> None:
        self.training, self.folder = training, folder
        self.read: dict[str, set[str]] = {}

    def sibling(self, ending: str) -> Measured | None:
        """The report of the same training whose name ends so, as `-flow`; None where there is none."""
        folder = self.folder.with_name(self.folder.name + ending)
        if folder not in self._siblings and folder.exists():
            self._siblings[folder] = Measured(self.training, folder)
        return self._siblings.get(folder)

    @property
    def all(self) -> list[Measured]:
        """This report, and those beside it that were read."""
        return [self, *self._siblings.values()]

    def column(self, table: str, name: str, **keys: str) -> pd.Series:
        """A column of a table on the rows with these words (sample, ref, run_b), by step; without the rows on which it
        is empty."""
        self.read.setdefault(table, set()).add(name)
        frame = self.frame(table)
        if name not in frame:
            return pd.Series(dtype=float)
        rows, steps = self._rows(table, tuple(keys.items()))
        values = frame[name].to_numpy(dtype=float)[rows]
        known = ~np.isnan(values)
        return pd.Series(values[known], index=steps[known])

    def _rows(self, table: str, keys: tuple[tuple[str, str], ...]) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of a table have these words, and their steps: a table is asked for many columns on the same."""
        if (table, keys) not in self._chosen:
            frame = self.frame(table)
            chosen = np.ones(len(frame), dtype=bool)
            for key, word in keys:
                chosen &= (frame[key] == word).to_numpy()
            rows = np.flatnonzero(chosen)
            self._chosen[table, keys] = rows, frame["step_a" if "step_a" in frame else "step"].to_numpy()[rows]
        return self._chosen[table, keys]

    def words(self, table: str, key: str) -> list[str]:
        """What a key of a table is on its rows, in the order of appearance."""
        frame = self.frame(table)
        return list(dict.fromkeys(frame[key])) if key in frame else []

    def steps(self, name: str, sample: str = "own") -> pd.Series:
        return self.column("steps", name, sample=sample)

    def towards(self, name: str, sample: str = "own", ref: str = "final") -> pd.Series:
        return self.column("references", name, sample=sample, ref=ref)

    def frame(self, table: str) -> pd.DataFrame:
        """A table as it lies in the folder: CSV, or gzipped as it is kept; empty where there is none."""
        if table not in self._frames:
            paths = [self.folder / f"{table}.csv", self.folder / f"{table}.csv.gz"]
            path = next((path for path in paths if path.exists()), None)
            frame = (
                pd.DataFrame() if path is None else pd.read_csv(path, dtype={"sample": str, "ref": str, "run_b": str})
            )
            self._frames[table] = frame
        return self._frames[table]

    @cached_property
    def _chosen(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], tuple[np.ndarray, np.ndarray]]:
        return {}

    @cached_property
    def _siblings(self) -> dict[Path, Measured]:
        return {}

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        return {}


def last(column: pd.Series) -> float:
    """The value on the last row that has one."""
    return float(column.iloc[-1]) if len(column) else np.nan


def mean(column: pd.Series, since: float = 0.0, until: float = 1.0) -> float:
    """Over a part of the rows that have a value, as 0.1 to 0.9 of them."""
    part = stretch(column, since, until)
    return float(part.mean()) if len(part) else np.nan


def stretch(column: pd.Series, since: float, until: float) -> pd.Series:
    return column.iloc[int(since * len(column)) : max(int(until * len(column)), int(since * len(column)) + 1)]


def spread(column: pd.Series) -> float:
    """The 95% quantile over the 5% quantile, from a tenth to nine tenths of the rows: 1 is constant. Infinite where the
    lower one is not positive; NaN without rows."""
    if not len(column):
        return np.nan
    low, high = stretch(column, 0.1, 0.9).quantile([0.05, 0.95])
    return float(high / low) if low > 0 else np.inf

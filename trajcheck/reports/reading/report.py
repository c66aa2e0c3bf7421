"""A report as it stands in its folder: saved tables and the summary, from which figures and the page are made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trajcheck.errors import BadInputError
from trajcheck.files.opening import MOST_NUMBERS, MOST_TEXT, TooLargeError, opened, read_json
from trajcheck.metrics.assumptions.entries import NUMBERS
from trajcheck.reports.making.csv_text import cell
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.reports.reading.reasons import Reasons

#: Columns that hold words; all others hold numbers.
WORDS = (
    *("ref", "sample", "tensor", "run_a", "run_b", "interpolated", "table", "column", "steps", "reason"),
    *("assumption", "parameter", "formula", "group", "average"),
)

#: The tables of each kind of report, the first of which it cannot be without.
TABLES = {
    "analysis": (
        "steps",
        "references",
        "assumptions",
        "schedule",
        "layers",
        "trajectory",
        "losses",
        "allocation",
        "averages",
    ),
    "comparison": ("compare", "layers"),
    "flow": ("flow",),
}

#: The tables of an analysis that not every one makes.
OPTIONAL = TABLES["analysis"][3:]

#: The columns that a table cannot be without.
_NEEDED = {
    "steps": ("step", "sample"),
    "references": ("step", "ref", "sample"),
    "assumptions": ("assumption", "parameter", "ref", "sample", *NUMBERS),
    "compare": ("run_a", "run_b", "step_a", "step_b"),
    "flow": ("step",),
    "layers": ("tensor",),
    "trajectory": ("step",),
    "allocation": ("step", "sample", "tensor", "group"),
    "averages": ("step", "average", "sample"),
    "losses": ("step", "until"),
    "schedule": ("step", "ref", "sample"),
    "undefined": ("table", "column", "reason"),
}


class Series(NamedTuple):
    """One column along the run: `steps` [n] ascending, `values` [n] and `errors` [n] (standard errors), NaN where
    undefined; `errors` is None where the table has none."""

    steps: np.ndarray
    values: np.ndarray
    errors: np.ndarray | None

    @property
    def defined(self) -> np.ndarray:
        return np.isfinite(self.values)

    def __bool__(self) -> bool:
        """Whether it has a single value."""
        return bool(self.defined.any())


class Along(NamedTuple):
    """What stands below a figure of a comparison or a run: the words, and whether its values are whole numbers."""

    words: str = "step $t$"
    whole: bool = True


STEPS = Along()


@dataclass(frozen=True)
class SavedReport:
    """`kind` is analysis, comparison or flow; `tables` are the CSV files by name, words as str, numbers as float64 with
    NaN where a cell is empty."""

    folder: Path
    kind: str
    tables: Mapping[str, pd.DataFrame]
    undefined: pd.DataFrame
    summary: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.summary["run"]["id"])

    @cached_property
    def references(self) -> list[str]:
        """The references, in the order in which they were given."""
        return self.keys("references", "ref")

    @property
    def loss_floor(self) -> float:
        """f_inf: as it was given, else 0, where the losses are known not to be negative."""
        return float(self.summary["options"].get("loss_floor") or 0.0)

    @cached_property
    def samples(self) -> list[str]:
        return self.keys("steps", "sample")

    @cached_property
    def others(self) -> list[str]:
        """Of a comparison: the runs that were compared with the first."""
        return self.keys("compare", "run_b")

    @cached_property
    def along(self) -> Along:
        """What stands below the figures: of a comparison by time, the time at which its pairs were matched."""
        if self.kind != "comparison":
            return STEPS
        timed = self.summary["options"].get("align") == "time" and "tau_a" in self.tables["compare"]
        return Along(r"time $\tau$, the sum of learning rates", False) if timed else Along("step $t$ of run a")

    def keys(self, table: str, name: str) -> list[str]:
        """The distinct words of a column, in order of appearance; none where there is no such table."""
        frame = self.tables.get(table)
        return list(dict.fromkeys(frame[name])) if frame is not None and name in frame else []

    def series(self, table: str, column: str, **keys: str) -> Series:
        """A column on the rows with these words; all NaN where the table lacks it. Rows on which nobody asked for it
        are none of its rows, so that the others are neighbours."""
        frame = self._part(table, tuple(keys.items()))
        steps = frame["step_a" if table == "compare" or "step_a" in frame else "step"].to_numpy(dtype=np.float64)
        values = _numbers(frame, column)
        errors = _numbers(frame, f"{column}_se") if f"{column}_se" in frame else None
        asked = ~self.reasons.not_asked_for(table, column, steps, keys) | np.isfinite(values)
        return Series(steps[asked], values[asked], None if errors is None else errors[asked])

    def drawn(self, table: str, column: str, **keys: str) -> Series:
        """The same over what stands below the figures, `along`, in place of steps."""
        series = self.series(table, column, **keys)
        return series._replace(steps=self.along_axis(series.steps))

    def along_axis(self, steps: np.ndarray) -> np.ndarray:
        """Where rows stand in figures: at their steps, or of a comparison by time at the first run's times."""
        if self.along.whole:
            return steps
        frame = self.tables["compare"]
        known = frame["step_a"].to_numpy(dtype=np.float64)
        order = np.argsort(known, kind="stable")
        place = order[np.minimum(np.searchsorted(known, steps, sorter=order), len(known) - 1)]
        return frame["tau_a"].to_numpy(dtype=np.float64)[place]

    def of_samples(self, columns: Iterable[str]) -> dict[tuple[str, str], Series]:
        """Those columns of steps.csv that have a value, by column and sample."""
        every = {
            (name, sample): self.series("steps", name, sample=sample) for name in columns for sample in self.samples
        }
        return {key: series for key, series in every.items() if series}

    def _part(self, table: str, keys: tuple[tuple[str, str], ...]) -> pd.DataFrame:
        """The rows of a table with these words; found once, since comparing words is what drawing would spend on."""
        if (table, keys) not in self._parts:
            frame = self.tables[table]
            if keys:
                frame = self._part(table, keys[:-1])
                name, word = keys[-1]
                frame = frame[frame[name] == word] if name in frame else frame[:0]
            self._parts[table, keys] = frame
        return self._parts[table, keys]

    @cached_property
    def _parts(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], pd.DataFrame]:
        return {}

    def why_empty(self, *columns: str) -> str:
        """Why columns have no value, in the words of undefined.csv: its most common reasons, at most two."""
        return self.reasons.most_common(columns) or f"the report has no {' or '.join(columns)}"

    @cached_property
    def reasons(self) -> Reasons:
        return Reasons(self.undefined)


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    if column not in frame:
        return np.full(len(frame), np.nan)
    values = frame[column].to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def read_report(folder: Path) -> SavedReport:
    """The report that a folder holds. Raises BadInputError where it holds none, or a file that is none of its own."""
    summary = _summary(folder)
    kind = "flow" if "flow" in summary else "comparison" if "runs" in summary else "analysis"
    options = summary["options"]
    named = {str(cell(name)): name for name in _named(summary)}
    optional = {
        "layers": options.get("layers") or options.get("group"),
        "trajectory": options.get("pca"),
        "losses": summary.get("losses"),
        "allocation": options.get("allocate"),
        "averages": options.get("average"),
        "schedule": summary.get("schedule"),
    }
    tables = {
        name: _table(folder / f"{name}.csv", named)
        for name in TABLES[kind]
        if optional.get(name, True)  # one that lies there all the same is an earlier report's
    }
    return SavedReport(folder, kind, tables, _table(folder / "undefined.csv", named), summary)


def as_saved(
    folder: Path,
    kind: str,
    frames: Mapping[str, pd.DataFrame | None],
    undefined: pd.DataFrame,
    summary: Mapping[str, Any],
) -> SavedReport:
    """The same from frames in memory, without those that are None; they are copied."""
    tables = {name: _typed(frame) for name, frame in frames.items() if frame is not None}
    return SavedReport(folder, kind, tables, _typed(undefined), summary)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Words as str, "" where a cell is empty; numbers as float64."""
    columns: dict[str, pd.Series] = {}
    for name, column in frame.items():
        if name in WORDS:
            columns[str(name)] = column.astype(object).where(column.notna(), "").map(str)
        else:
            columns[str(name)] = column.astype(np.float64)
    return pd.DataFrame(columns)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        summary = read_json(path)
    except FileNotFoundError:
        raise BadInputError(
            f"{folder}: holds no report: there is no {SUMMARY}. Name the folder that trajcheck analyze, compare or "
            "flow wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: cannot be read as JSON ({error}). Make the report anew.") from error
    known = isinstance(summary, dict) and all(
        isinstance(summary.get(name), dict) for name in ("run", "headline", "options", "left_out", "versions")
    )
    if not known or summary.get("format") != 1 or "id" not in summary["run"]:
        raise BadInputError(f"{path}: is not a report's summary of format 1. Make the report anew.")
    return summary


def _named(summary: Mapping[str, Any]) -> Iterator[str]:
    """The references, or other runs, by the words that the summary has for them."""
    head = summary["headline"]
    references = head.get("references")
    yield from references if isinstance(references, dict) else ()
    yield from head if "runs" in summary else ()


def _table(path: Path, named: Mapping[str, str]) -> pd.DataFrame:
    """A CSV file; a cell that stands for a word of `named` is that word again."""
    try:
        with opened(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MOST_NUMBERS:
                raise TooLargeError(path, size, MOST_NUMBERS)
            head = file.readline(MOST_TEXT).decode("utf-8", "surrogateescape").strip().split(",")
            file.seek(0)
            frame = pd.read_csv(
                file,
                encoding="utf-8",
                encoding_errors="surrogateescape",
                keep_default_na=False,
                na_values=[""],
                dtype={name: str if name in WORDS else np.float64 for name in head},
            )
    except FileNotFoundError:
        raise BadInputError(f"{path.parent}: {path.name} is missing. Make the report anew.") from None
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{path}: cannot be read as a report's table ({error!s:.300}). Make the report anew."
        ) from error
    needed = _NEEDED[path.stem]
    if path.stem == "layers":  # of an analysis, or of a comparison
        needed = ("step_a" if "step_a" in frame else "step", *needed)
    if lacking := [name for name in needed if name not in frame]:
        raise BadInputError(f"{path}: has no column {lacking[0]!r}. Make the report anew.")
    if strange := [name for name in frame if name not in WORDS and frame[name].dtype != np.float64]:
        raise BadInputError(f"{path}: its column {strange[0]!r:.60} does not hold numbers. Make the report anew.")
    words = [name for name in frame if name in WORDS]
    frame[words] = frame[words].fillna("")
    for name in {"ref", "run_b"} & set(words):
        frame[name] = frame[name].map(lambda word: named.get(word, word))
    return frame

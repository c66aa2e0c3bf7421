"""Every number of a report under a tag and its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from trajcheck.readable import plain
from trajcheck.reports.reading.report import WORDS, SavedReport

#: The words by which each table's rows are told apart, in the order of the tag.
_KEYS = {
    "steps": ("sample",),
    "references": ("ref", "sample"),
    "layers": ("ref", "run_b", "sample", "tensor"),
    "trajectory": (),
    "losses": (),
    "allocation": ("sample", "tensor", "group"),
    "averages": ("average", "sample"),
    "schedule": ("ref", "sample"),
    "compare": ("run_b",),
    "flow": (),
}

#: Letters of one part of a tag.
LONGEST = 200

#: Columns that say where a row stands.
_PLACES = ("step", "step_a", "until")

#: What stands behind trajcheck/ where it is no reference.
_TABLES = tuple(name for name in _KEYS if name != "references")


class Tagged(NamedTuple):
    """One column on the rows of some words: values [n] that are all finite, at steps [n] ascending."""

    tag: str
    steps: np.ndarray
    values: np.ndarray


def tagged(report: SavedReport) -> Iterator[Tagged]:
    """The report's numeric columns, without their empty cells: trajcheck/REF/SAMPLE/COLUMN of references.csv,
    trajcheck/steps/SAMPLE/COLUMN of steps.csv, trajcheck/layers/REF/SAMPLE/TENSOR/COLUMN, and so on. No two columns
    share a tag."""
    names = _tags([*report.references, *report.others])
    for table, frame in report.tables.items():
        if table == "assumptions":  # of the whole run: no row has a step
            continue
        step = "step_a" if "step_a" in frame else "step"
        keys = [key for key in _KEYS[table] if key in frame]
        columns = [name for name in map(str, frame) if name not in WORDS and name not in _PLACES]
        parts = frame.groupby(keys, sort=False, dropna=False) if keys else [((), frame)]
        for words, rows in parts:
            folder = "/".join(_folder(table, keys, tuple(map(str, words)), names))
            yield from _columns(folder, rows.sort_values(step, kind="stable"), step, columns)


def _columns(folder: str, rows: pd.DataFrame, step: str, columns: Sequence[str]) -> Iterator[Tagged]:
    places = rows[step].to_numpy(dtype=np.float64)
    if not (np.isfinite(places) & (np.abs(places) < 2.0**62)).all():
        raise ValueError(f"a row has no {step}")
    steps = places.astype(np.int64)
    for column in columns:
        values = rows[column].to_numpy(dtype=np.float64)
        here = np.isfinite(values)
        if here.any():
            yield Tagged(f"{folder}/{_plain(column)}", steps[here], values[here])


def _folder(table: str, keys: Sequence[str], words: tuple[str, ...], names: dict[str, str]) -> Iterator[str]:
    yield "trajcheck"
    if table != "references":
        yield table
    for key, word in zip(keys, words, strict=True):
        if key in ("ref", "run_b"):
            yield names[word] if word else "path"
        else:
            yield _plain(word)


def _tags(references: Sequence[str]) -> dict[str, str]:
    """A name for each reference that is one part of a tag, and no other's."""
    names: dict[str, str] = {}
    taken = {*_TABLES, "path"}
    for reference in dict.fromkeys(references):
        name, number = _plain(reference), 1
        while name in taken:
            number += 1
            name = f"{_plain(reference)}-{number}"
        names[reference] = name
        taken.add(name)
    return names


def _plain(word: str) -> str:
    """A word without what divides tags, and without what cannot be shown."""
    return plain(word, LONGEST).replace("/", ".").strip() or "(no name)"

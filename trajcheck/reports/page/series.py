"""Columns for the interactive chart, packed small.

Values are rounded to 14 binary digits of the fraction (4 decimal ones), their bytes put in order of significance, and
all of it deflated; equal columns are stored once. What finds no room within BUDGET is left out and listed.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from trajcheck.reports.page.quantities import QUANTITIES
from trajcheck.reports.reading.report import SavedReport

#: Bytes that the packed columns may take on the page, base64 and all.
BUDGET = 2_000_000

#: Rows of one line from which on only every k-th is packed.
MOST_ROWS = 20_000

DIGITS = 14


class ChartLine(NamedTuple):
    """One line of a quantity: the words that choose it."""

    ref: str
    sample: str


class Packed(NamedTuple):
    """`data` is base64 of deflated bytes; `meta` says where each column lies, `left_out` names what found no room."""

    data: str
    meta: dict[str, Any]
    left_out: list[str]


class _Store:
    """Arrays one behind the other, each once; `size` counts what they take deflated."""

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}
        self.lengths: list[int] = []
        self.parts: list[bytes] = []
        self.size = 0
        self.sizes: dict[bytes, int] = {}  # of each part, compressed alone

    def add(self, planes: list[tuple[bytes, int]]) -> None:
        for part, length in planes:
            if part not in self.places:
                self.places[part] = len(self.lengths)
                self.lengths.append(length)
                self.parts.append(part)
                self.size += self._deflated(part)

    def cost(self, planes: list[tuple[bytes, int]]) -> int:
        return sum(self._deflated(part) for part in {part for part, _ in planes} - self.places.keys())

    def _deflated(self, part: bytes) -> int:
        if part not in self.sizes:
            self.sizes[part] = len(zlib.compress(part, 6))
        return self.sizes[part]


def pack(report: SavedReport) -> Packed:
    """Every quantity of the report that has a value, while there is room: those of the table with fewest lines first,
    each table's in the order of QUANTITIES."""
    store, quantities, left_out = _Store(), [], []
    thin = 1
    every = {table: list(_lines(report, table)) for table in QUANTITIES if table in report.tables}
    for table, lines in sorted(every.items(), key=lambda each: len(each[1])):
        columns = QUANTITIES[table]
        longest = max((len(report.series(table, "weight", **keys).steps) for _, keys in lines), default=0)
        thin = max(thin, -(-longest // MOST_ROWS))
        for column, words in columns.items():
            found = []
            for line, keys in lines:
                series = report.series(table, column, **keys)
                if series:
                    errors = series.errors if series.errors is not None and np.isfinite(series.errors).any() else None
                    x = {"step": series.steps, "tau": _tau(report, table, series.steps, keys)}
                    found.append((line, x, series.values, errors))
            if not found:
                continue
            entry, planes = _entry(table, column, words, found, thin)
            if (store.size + store.cost(planes)) * 4 / 3 > BUDGET:
                left_out.append(f"{table}.csv: {column}")
                continue
            store.add(planes)
            for each in entry["lines"]:
                each |= {name: store.places[each[name]] for name in ("step", "tau", "y", "error") if name in each}
            quantities.append(entry)
    quantities.sort(key=lambda entry: list(QUANTITIES).index(entry["table"]))
    meta = {
        "lengths": store.lengths,
        "quantities": quantities,
        "thin": thin,
        "otherwise": "run b" if report.kind == "comparison" else "reference",
        "along": "step" if report.along.whole else "tau",
        "step": "step of run a" if report.kind == "comparison" else "step",
    }
    data = base64.b64encode(zlib.compress(b"".join(store.parts), 9)).decode()
    return Packed(data, meta, left_out)


def _lines(report: SavedReport, table: str) -> Iterator[tuple[ChartLine, dict[str, str]]]:
    if table == "references":
        for ref in report.references:
            for sample in report.keys(table, "sample"):
                yield ChartLine(ref, sample), {"ref": ref, "sample": sample}
    elif table == "steps":
        for sample in report.samples:
            yield ChartLine("", sample), {"sample": sample}
    elif table == "compare":
        for run in report.others:
            yield ChartLine(run, ""), {"run_b": run}
    else:
        yield ChartLine("", ""), {}


def _tau(report: SavedReport, table: str, steps: np.ndarray, keys: dict[str, str]) -> np.ndarray | None:
    """tau at each step, in the run's own table."""
    if table in ("compare", "flow"):
        tau = report.series(table, "tau_a" if table == "compare" else "tau", **keys)
        return tau.values if tau else None
    tau = report.series("steps", "tau", sample=report.samples[0])
    if not tau:
        return None
    place = np.searchsorted(tau.steps, steps)
    there = (place < len(tau.steps)) & (tau.steps[np.minimum(place, len(tau.steps) - 1)] == steps)
    return np.where(there, tau.values[np.minimum(place, len(tau.steps) - 1)], np.nan)


def _entry(
    table: str, column: str, words: str, found: list[Any], thin: int
) -> tuple[dict[str, Any], list[tuple[bytes, int]]]:
    """The meta data of one quantity, in which each array is its bytes until it has a place, and all those arrays."""
    lines, planes = [], []
    for line, x, values, errors in found:
        each: dict[str, Any] = {"ref": line.ref, "sample": line.sample}
        arrays = {**x, "y": rounded(values), "error": None if errors is None else rounded(errors)}
        for name, array in arrays.items():
            if array is not None:
                each[name] = planes_of(array[::thin])
                planes.append((each[name], len(array[::thin])))
        lines.append(each)
    return {"table": table, "column": column, "words": words, "lines": lines}, planes


def rounded(values: np.ndarray) -> np.ndarray:
    """float64 with the fraction rounded to DIGITS binary digits: a relative error of at most 2^-(DIGITS + 1)."""
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
    cut = np.uint64(52 - DIGITS)
    kept = ((bits + (np.uint64(1) << (cut - np.uint64(1)))) >> cut) << cut
    result = kept.view(np.float64)
    overflow = np.isfinite(values) & ~np.isfinite(result)
    result = np.where(overflow, ((bits >> cut) << cut).view(np.float64), result)
    return np.where(np.isfinite(values), result, np.nan)


def planes_of(values: np.ndarray) -> bytes:
    """The bytes of little-endian float64, all first ones, then all second ones, ...: alike ones lie together."""
    return np.ascontiguousarray(values, dtype="<f8").view(np.uint8).reshape(-1, 8).T.tobytes()

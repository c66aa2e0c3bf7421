"""From columns of pairs to data frames, and the headline of a comparison for the terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trajcheck.columns import Column, column
from trajcheck.reports.frames import UNDEFINED, Part
from trajcheck.reports.terminal import WIDTH, fitted, number, permuted
from trajcheck.rows import runs_of_steps

if TYPE_CHECKING:
    from trajcheck.comparison_findings import Comparison

#: Keys of a pair, and the columns that stand before the last of them.
_KEYS = ("run_a", "run_b", "step_a", "step_b")
_BEFORE_INTERPOLATED = ("tau_a", "tau_b", "tau_gap")


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


def comparison_text(comparison: Comparison) -> str:
    """The headline as an aligned table within 80 columns, what it means, warnings, and where the files are."""
    summary = comparison.summary
    first, *others = summary["runs"]
    optimizer = first["optimizer"] or "optimizer unknown"
    lines = [
        f"run a      {first['path']}",
        f"           {_records(first)}",
        f"           {first['parameters']:,} parameters in {first['tensors']} tensors, {optimizer}",
        f"aligned    {_alignment(summary['options'])}",
        f"lines      {_line(summary['line'])}",
        *(permuted(path, found) for path, found in summary["permutations"].items()),
        "",
        *fitted(lambda digits: _table(summary, others, digits)),
        "",
        *_legend(summary),
    ]
    for warning in summary["warnings"]:
        lines += textwrap.wrap(f"warning: {warning}", WIDTH, subsequent_indent="         ")
    files = ["compare.csv", *(["layers.csv"] if comparison.layers is not None else []), "undefined.csv", "summary.json"]
    return "\n".join([*lines, "", *(os.path.join(comparison.folder, name) for name in files)])


def _records(run: Mapping[str, Any]) -> str:
    return f"{run['recorded_steps']} iterates, steps {run['first_step']} to {run['last_step']}"


def _alignment(options: Mapping[str, Any]) -> str:
    how = {
        "step": "by step",
        "time": "by time, tau = sum of learning rates",
        "loss": "by loss, the nearest recorded one in the order of both runs",
    }[options["align"]]
    return how + (", else between two records" if options["interpolate"] else "")


def _line(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return "none: the loss between iterates needs --objective FILE.py:NAME"
    points = len(line["points"]) - 2
    what = {"own": "z of a's record", "probe": "a's probe batches", "full": "all of the data set"}[line["sample"]]
    return f"{points} points between x_a and x_b, on {what}, {line['dtype']} on {line['device']}"


def _table(summary: Mapping[str, Any], others: Sequence[Mapping[str, Any]], digits: int) -> list[tuple[str, ...]]:
    head = ("run b", "pairs", "init", "last steps", "dist", "relative", "cosine")
    rows: list[tuple[str, ...]] = [head if summary["line"] is None else (*head, "barrier")]
    for run in others:
        values, one = summary["headline"][run["path"]], summary["inits"][run["path"]]["one"]
        rows.append(
            (
                run["path"],
                str(values["pairs"]),
                {True: "same", False: "other", None: "?"}[one],
                f"{values['step_a']}, {values['step_b']}",
                *(number(values[name], digits) for name in ("dist", "relative_dist", "displacement_cos")),
                *([] if summary["line"] is None else [number(values["max_barrier"], digits)]),
            )
        )
    return rows


def _legend(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        "dist      |x_a - x_b| at the last pair",
        "relative  dist / the larger of the two distances from the own first record",
        "cosine    cos(x_a - a_0, x_b - b_0): whether both went the same way",
    ]
    if summary["line"] is not None:
        lines.append("barrier   most that the loss rises above the line between its ends, of all pairs")
    return lines

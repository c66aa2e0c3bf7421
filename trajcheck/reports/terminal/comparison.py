"""From columns of pairs to data frames, and the headline of a comparison for the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajcheck.readable import in_lines
from trajcheck.reports.terminal.layout import fitted, number, permuted, warning_lines

if TYPE_CHECKING:
    from trajcheck.reports.making.results import Comparison


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
        *_line(summary["line"]),
        *(permuted(path, found) for path, found in summary["permutations"].items()),
        "",
        *fitted(lambda digits: _table(summary, others, digits)),
        "",
        *_legend(summary),
    ]
    lines += warning_lines(summary["warnings"])
    files = ["compare.csv", *(["layers.csv"] if comparison.layers is not None else []), "undefined.csv", "summary.json"]
    return in_lines([*lines, "", *(os.path.join(comparison.folder, name) for name in files)])


def _records(run: Mapping[str, Any]) -> str:
    return f"{run['recorded_steps']} iterates, steps {run['first_step']} to {run['last_step']}"


def _alignment(options: Mapping[str, Any]) -> str:
    how = {
        "step": "by step",
        "time": "by time, tau = sum of learning rates",
        "loss": "by loss, the nearest recorded one in the order of both runs",
    }[options["align"]]
    return how + (", else between two records" if options["interpolate"] else "")


def _line(line: Mapping[str, Any] | None) -> list[str]:
    if line is None:
        return ["lines      none: the loss between iterates needs --objective FILE.py:NAME"]
    points = len(line["points"]) - 2
    what = {"own": "z of a's record", "probe": "a's probe batches", "full": "all of the data set"}[line["sample"]]
    mode = f"in {line['mode'].partition(' (')[0]}, " if line.get("mode") else ""
    return [
        f"lines      {points} points between x_a and x_b, on {what},",
        f"           {mode}{line['dtype']} on {line['device']}",
    ]


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

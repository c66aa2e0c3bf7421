"""The headline as a short aligned table for the terminal, that fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from trajcheck.readable import in_lines
from trajcheck.reports.quantities.headline import headline_tables, legend
from trajcheck.reports.terminal.allocation import allocation_lines
from trajcheck.reports.terminal.averages import averages_lines
from trajcheck.reports.terminal.layout import WIDTH, fitted, permuted, warning_lines, wrapped

if TYPE_CHECKING:
    from trajcheck.reports.making.results import Report


def summary_text(report: Report) -> str:
    """The headline, what it means in a line each, warnings, and where the files are."""
    summary = report.summary
    run, replay, head = summary["run"], summary["replay"], summary["headline"]
    every = "every step" if run["stride"] == 1 and _dense(run) else f"smallest stride {run['stride']}"
    optimizer = run["optimizer"] or "optimizer unknown"
    lines = [
        f"run        {run['path']}",
        f"           {run['recorded_steps']} iterates, steps {run['first_step']} to {run['last_step']}, {every}",
        f"           {run['parameters']:,} parameters in {run['tensors']} tensors, {optimizer}",
        f"replay     {_replay(replay, head)}",
        *_precision(replay),
        *_reused(summary["scalars"]),
        *(permuted(spec, found) for spec, found in (summary["permutations"] or {}).items()),
        "",
        *_tables(head),
        *(line for term, words in legend(summary) for line in wrapped(f"{term:<9}{words}", 9)),
    ]
    lines += allocation_lines(summary.get("allocation", {}))
    lines += averages_lines(summary.get("averages", {}))
    lines += warning_lines(summary["warnings"])
    return in_lines([*lines, "", *(report.folder / name for name in (*report.files, "summary.json"))])


def _dense(run: Mapping[str, Any]) -> bool:
    return run["recorded_steps"] == run["last_step"] - run["first_step"] + 1


def _replay(replay: Mapping[str, Any] | None, head: Mapping[str, Any]) -> str:
    if replay is None:
        return "none: losses at other points need --objective FILE.py:NAME"
    samples = ", ".join(head.get("samples", [head["sample"]]))
    where = "each step on its own sample" if samples == "own" else f"samples {samples}"
    return f"{replay['dtype']} on {replay['device']}, {where}, {replay['evaluations']} evaluations"


def _precision(replay: Mapping[str, Any] | None) -> list[str]:
    """Why the replay is in its dtype, where nobody asked for that, and how its rounding was measured."""
    if replay is None:
        return []
    second = replay.get("second")
    parts = [] if replay["why"].startswith("as asked") else [f"{replay['dtype']}: {replay['why']}"]
    if second and not second["failed"]:
        parts.append(f"rounding measured on {second['rows']} steps in {second['dtype']}")
    return [f"{' ' * 11}{line}" for line in wrapped("; ".join(parts), 0, WIDTH - 11)]


def _reused(scalars: Mapping[str, int]) -> list[str]:
    rows = scalars["computed"] + scalars["reused"]
    return (
        [f"saved      {scalars['reused']} of {rows} rows by an earlier call (--fresh: anew)"]
        if scalars["reused"]
        else []
    )


def _tables(head: Mapping[str, Any]) -> list[str]:
    """Each as wide as it must be, an empty line below it."""
    lines: list[str] = []
    for place in range(len(headline_tables(head))):
        lines += [*fitted(partial(_rows, head, place)), ""]
    return lines


def _rows(head: Mapping[str, Any], place: int, digits: int) -> list[tuple[str, ...]]:
    each = headline_tables(head, digits)[place]
    return [each.heads, *each.rows]

"""The headline as a short aligned table for the terminal, 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trajcheck.analysis import Report

WIDTH = 80
PREVIOUS = "x_(t-1)"
_REF = 20
_HEAD = ("reference", "cosine", "+/-", "ratio", "num", "den", "convex", "not", "?")
_WIDTHS = (_REF, 8, 7, 7, 8, 8, 6, 4, 4)


def summary_text(report: Report) -> str:
    """The headline, what it means in a line each, warnings, and where the files are."""
    summary = report.summary
    run, replay, head = summary["run"], summary["replay"], summary["headline"]
    every = "every step" if run["stride"] == 1 and _dense(run) else f"smallest stride {run['stride']}"
    lines = [
        f"run        {run['path']}",
        f"           {run['recorded_steps']} recorded iterates, steps {run['first_step']} to {run['last_step']} "
        f"({every}), {run['optimizer'] or 'unknown optimizer'}",
        f"           {run['parameters']:,} parameters in {run['tensors']} tensors",
        f"replay     {_replay(replay)}",
        "",
        _line(_HEAD),
        *(_row(spec, values) for spec, values in head["references"].items()),
        _row(PREVIOUS, head["previous"]),
        "",
        *_legend(head),
    ]
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += ["", *(f"{report.folder / name}" for name in ("steps.csv", "references.csv", "undefined.csv"))]
    return "\n".join([*lines, f"{report.folder / 'summary.json'}"])


def _dense(run: Mapping[str, Any]) -> bool:
    return run["recorded_steps"] == run["last_step"] - run["first_step"] + 1


def _replay(replay: Mapping[str, Any] | None) -> str:
    if replay is None:
        return "none: losses at other points need --objective FILE.py:NAME"
    return f"{replay['dtype']} on {replay['device']}, each step on its own sample, {replay['evaluations']} evaluations"


def _row(spec: str, values: Mapping[str, Any]) -> str:
    shares = values["shares"] or {}
    return _line(
        (
            spec if len(spec) <= _REF else "..." + spec[3 - _REF :],
            _number(values["cosine"], 3),
            _number(values["cosine_error"], 3),
            _number(values["convexity_ratio"], 3),
            _number(values["convexity_num"], 3),
            _number(values["convexity_den"], 3),
            *(_percent(shares.get(name)) for name in ("convex", "not_convex", "undetermined")),
        )
    )


def _line(cells: tuple[str, ...]) -> str:
    first, *others = zip(cells, _WIDTHS, strict=True)
    return (first[0].ljust(first[1]) + "".join(cell.rjust(width) for cell, width in others)).rstrip()


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}%"


def _legend(head: Mapping[str, Any]) -> list[str]:
    kinds = {values["cosine_of"] for values in head["references"].values()}
    lines = []
    if "cos_skip" in kinds:
        lines.append("cosine     mean of cos(g_t, x_s - x*), s after t: without the step's own term")
    if "cos" in kinds:
        lines.append("cosine     mean of cos(g_t, x_t - x*) where x* does not depend on the step's sample")
    return [
        *lines,
        "ratio      num / den = sum <g, x - y> / sum (f(x) - f(y)); >= 1 if convex and den > 0",
        "convex     share of steps with f(x) - f(y) - <g, x - y> < 0; not: > 0; ?: unresolved",
    ]

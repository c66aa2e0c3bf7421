"""The headline as a short aligned table for the terminal, that fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trajcheck.readable import in_lines
from trajcheck.reports.quantities.catalogue import PREVIOUS
from trajcheck.reports.terminal.layout import WIDTH, _percent, fitted, number, permuted, warning_lines, wrapped

if TYPE_CHECKING:
    from trajcheck.reports.making.results import Report

_HEAD = ("reference", "cosine", "+/-", "ratio", "num", "den", "convex", "not", "?")


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
        *fitted(lambda digits: _table(head, digits)),
        "",
        *_legend(head, run["skip"]),
    ]
    lines += warning_lines(summary["warnings"])
    layers = ["layers.csv"] if report.layers is not None else []
    names = [
        "steps.csv",
        "references.csv",
        *layers,
        *(["trajectory.csv"] if report.trajectory is not None else []),
        "undefined.csv",
        "summary.json",
    ]
    return in_lines([*lines, "", *(report.folder / name for name in names)])


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


def _table(head: Mapping[str, Any], digits: int) -> list[tuple[str, ...]]:
    """A line for each reference, and for x_(t-1); for each sample where there are several."""
    samples = head.get("samples")
    if samples is None:
        return [
            _HEAD,
            *((spec, *_cells(values, digits)) for spec, values in head["references"].items()),
            (PREVIOUS, *_cells(head["previous"], digits)),
        ]
    return [
        (_HEAD[0], "sample", *_HEAD[1:]),
        *(
            (spec, sample, *_cells(each["references"][spec], digits))
            for spec in head["references"]
            for sample, each in samples.items()
        ),
        *((PREVIOUS, sample, *_cells(each["previous"], digits)) for sample, each in samples.items()),
    ]


def _cells(values: Mapping[str, Any], digits: int) -> tuple[str, ...]:
    shares = values["shares"] or {}
    return (
        number(values["cosine"], digits) + {"cos": "*", "cos_skip": " "}.get(values["cosine_of"], ""),
        number(values["cosine_error"], min(2, digits)),
        *(number(values[f"convexity_{name}"], digits) for name in ("ratio", "num", "den")),
        *(_percent(shares.get(name)) for name in ("convex", "not_convex", "undetermined")),
    )


def _legend(head: Mapping[str, Any], skip: int | None) -> list[str]:
    heads = head.get("samples", {head["sample"]: head}).values()
    kinds = {values["cosine_of"] for each in heads for values in each["references"].values()}
    lines = []
    if "cos_skip" in kinds:
        after = "s after t" if skip == 1 else f"s >= t + {skip}"
        lines.append(f"cosine   mean of cos(g_t, x_s - x*), {after}: free of the step's own term")
    if "cos" in kinds:
        lines.append("cosine*  mean of cos(g_t, x_t - x*): x* does not depend on the sample of g_t")
    return [
        *lines,
        "ratio    num/den = sum <g, x-y> / sum f(x)-f(y); >= 1 if convex and den > 0",
        "convex   share of steps with f(x)-f(y)-<g, x-y> < 0; not: > 0; ?: unresolved",
    ]

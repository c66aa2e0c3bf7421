"""A gradient flow's report for the terminal, that fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trajcheck.readable import in_lines
from trajcheck.reports.terminal.layout import WIDTH, number, warning_lines

if TYPE_CHECKING:
    import pandas as pd

    from trajcheck.reports.making.results import FlowReport

#: Heads of the table, by column of flow.csv; those that flow.csv lacks are left out.
_HEADS = {
    "step": "step",
    "tau": "tau",
    "flow_dist": "flow_dist",
    "relative_flow_dist": "relative",
    "flow_error": "error",
    "loss": "loss",
    "flow_loss": "flow_loss",
    "lambda_min": "lam_min",
    "lambda_max": "lam_max",
    "bound_estimate": "bound",
}
ROWS = 6
#: What is left out, one after the other, where a line would be too long.
_DISPENSABLE = ("lambda_max", "relative_flow_dist", "lambda_min", "loss", "tau")


def flow_text(report: FlowReport) -> str:
    """Some rows of flow.csv, what they mean in a line each, warnings, and where the files are."""
    summary = report.summary
    run, flow, head, replay = (summary[name] for name in ("run", "flow", "headline", "replay"))
    rate = "rate not constant" if head["eta"] is None else f"rate {number(head['eta'])}"
    lines = [
        f"run        {run['path']}",
        f"           {len(report.flow)} iterates, steps {run['first_step']} to {run['last_step']}, "
        f"{run['optimizer'] or 'optimizer unknown'}, {rate}",
        f"           {run['parameters']:,} parameters in {run['tensors']} tensors",
        f"flow       RK45 at rtol {flow['rtol'][0]:g} and {flow['rtol'][1]:g}, sample {flow['sample']}",
        f"           {flow['gradient_evaluations']:,} gradients in {replay['dtype']} on {replay['device']}",
        "",
        *_table(report.flow),
        "",
        *_legend(report.flow, head),
    ]
    lines += warning_lines(summary["warnings"])
    return in_lines([*lines, "", *(report.folder / name for name in ("flow.csv", "undefined.csv", "summary.json"))])


def _table(frame: pd.DataFrame) -> list[str]:
    """The first row, the last, that of the largest flow_dist, and some between, evenly chosen; where eigenvalues stand
    in some rows only, from among those."""
    names = [name for name in _HEADS if name in frame.columns]
    rows = frame[frame["lambda_max"].notna()] if "lambda_max" in frame.columns else frame
    count = min(ROWS, len(rows))
    chosen = {rows.index[round(i * (len(rows) - 1) / max(1, count - 1))] for i in range(count)}
    if "flow_dist" in frame.columns and frame["flow_dist"].notna().any():
        chosen.add(frame["flow_dist"].idxmax())
    cells = {name: [_HEADS[name], *(_cell(name, value) for value in frame.loc[sorted(chosen), name])] for name in names}
    widths = {name: max(map(len, each)) for name, each in cells.items()}
    for name in _DISPENSABLE:
        if sum(widths.values()) + 2 * (len(widths) - 1) > WIDTH:
            widths.pop(name, None)
    lines = zip(*([cell.rjust(width) for cell in cells[name]] for name, width in widths.items()), strict=True)
    return ["  ".join(line) for line in lines]


def _cell(name: str, value: Any) -> str:
    if name == "step":
        return str(int(value))
    return number(None if value != value else float(value), 2 if name == "flow_error" else 3)


def _legend(frame: pd.DataFrame, head: Mapping[str, Any]) -> list[str]:
    lines = [
        "flow_dist  |x_t - theta(tau)|, theta' = -grad f(theta) from the same start",
        "relative   flow_dist / |x_t - x_start|;  error: of the integration",
    ]
    if "bound_estimate" in frame.columns:
        lines.append("bound      on flow_dist, from eigenvalues and gradients sampled on the flow")
    if head["max_flow_dist"] is not None:
        lines.append(f"farthest   {number(head['max_flow_dist'])} at step {head['max_flow_dist_step']}")
    wanted = head["wanted"]
    if wanted is not None and wanted["eta"] is not None:
        why = "" if wanted["limited_by"] == "distance" else ", the largest for which the bound holds"
        lines.append(f"wanted     {number(wanted['distance'])}: by the bound at a rate of {number(wanted['eta'])}{why}")
    return lines

"""Rows of a batch's index, made up: what index.html is made from, without any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: A name that would end elements and attributes, turn the order of letters and break lines.
NASTY = '</script><b onclick="x">\'&\u202egnp.exe\n\x07\udc80'


def done(run: str, refs: tuple[str, ...] = ("final",), **change: Any) -> dict[str, Any]:
    """What the index holds of a run that was analyzed; `change` replaces facts, and quantities of all references and
    of x_(t-1) as q__cosine."""
    values = {
        "cosine": 0.1874,
        "cosine_error": 0.0561,
        "cosine_of": "cos_skip",
        "convexity_ratio": 1.4,
        "convexity_num": 89.9,
        "convexity_den": 64.1,
        "convex": 0.9625,
        "not_convex": 0.0375,
        "undetermined": 0.0,
    }
    changed = {name.removeprefix("q__"): value for name, value in change.items() if name.startswith("q__")}
    rows = [{"ref": ref, "sample": "own", "values": values | changed, "reasons": {}} for ref in refs]
    sums = {"convexity_ratio": -1.7, "convexity_num": 3.5, "convexity_den": -2.1, "loss_change_sum": -2.07}
    rows.append({"ref": "x_(t-1)", "sample": "own", "values": sums | changed, "reasons": {"lambda_max": "not asked"}})
    row: dict[str, Any] = {
        "run": run,
        "status": "done",
        "report": "",
        "id": "made-up",
        "recorded_steps": 121,
        "first_step": 0,
        "last_step": 120,
        "parameters": 1210,
        "optimizer": "SGD",
        "user": {"seed": 3},
        "analyzed": "2026-01-31T22:05:09+00:00",
        "duration": 3.21,
        "left_out": 0,
        "warnings": 2,
        "message": "",
        "rows": rows,
    }
    return row | {name: value for name, value in change.items() if not name.startswith("q__")}


def failed(run: str, message: str) -> dict[str, Any]:
    return {
        "run": run,
        "status": "failed",
        "report": "",
        "analyzed": "2026-01-30T22:05:09+00:00",
        "message": message,
        "exit_code": 3,
    }


def with_report(out: Path, row: dict[str, Any], report: str, *names: str) -> dict[str, Any]:
    """The row with a report folder that holds these files, the last of them written last."""
    folder = out / report
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("")
    return row | {"report": report}

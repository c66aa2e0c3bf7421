"""Rows of a batch's index, made up: what index.html is made from, without any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: A name that would end elements and attributes, turn the order of letters and break lines.
NASTY = '</script><b onclick="x">\'&\u202egnp.exe\n\x07\udc80'


def done(run: str, refs: tuple[str, ...] = ("final",), **change: Any) -> dict[str, Any]:
    """The row of a run that was analyzed; `change` replaces values, those of references as final__cosine."""
    row: dict[str, Any] = {
        "run": run,
        "status": "done",
        "report": "",
        "id": "made-up",
        "recorded_steps": 121,
        "first_step": 0,
        "last_step": 120,
        "parameters": 1210,
        "sample": "own",
        "analyzed": "2026-01-31T22:05:09+00:00",
        "duration": 3.21,
        "left_out": 0,
        "warnings": 2,
        "message": "",
    }
    for ref in refs:
        row |= {
            f"{ref}: cosine": 0.1874,
            f"{ref}: cosine_error": 0.0561,
            f"{ref}: cosine_of": "cos_skip",
            f"{ref}: cosine_sample": "own",
            f"{ref}: convexity_ratio": 1.4,
            f"{ref}: convexity_num": 89.9,
            f"{ref}: convexity_den": 64.1,
            f"{ref}: convex": 0.9625,
            f"{ref}: not_convex": 0.0375,
            f"{ref}: undetermined": 0.0,
        }
    return row | {name.replace("__", ": "): value for name, value in change.items()}


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

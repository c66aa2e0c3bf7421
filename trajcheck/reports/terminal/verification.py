"""A verification as a short aligned table for the terminal, that fits 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trajcheck.readable import in_lines, size_text
from trajcheck.reports.terminal.layout import WIDTH, aligned, wrapped

if TYPE_CHECKING:
    from trajcheck.reports.making.results import Verification

_HEAD = ("run", "steps", "files", "size", "checksums", "damage")


def verification_text(found: Verification) -> str:
    """A line a run, and what one may want to know of them; damage is told elsewhere."""
    rows = [
        (str(run.path), str(run.steps), str(run.files), size_text(run.bytes), str(run.checked), str(len(run.damage)))
        for run in found.runs
    ]
    lines = [
        *aligned([_HEAD, *rows]),
        "",
        "files      of steps and probes, read whole",
        "checksums  files of which every tensor has one, and equals it",
    ]
    for run in found.runs:
        notes = [line for note in run.notes for line in wrapped(note, 2, WIDTH - 7)]
        lines += ["", str(run.path), *(f"  {line}" for line in notes)] if notes else []
    return in_lines(lines)

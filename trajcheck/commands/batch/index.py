"""index.csv: a row a run, from the states that lie in the report folders."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trajcheck.commands.batch.run_state import STATE, RunState, read_state
from trajcheck.errors import OutputError
from trajcheck.files.whole_files import write_bytes
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.scalars.saved import FOLDER as SCALARS

INDEX = "index.csv"
GONE = "gone"

#: The first columns; those of the references' headlines follow.
COLUMNS = (
    *("run", "status", "report", "id", "recorded_steps", "first_step", "last_step", "parameters", "sample"),
    *("analyzed", "duration", "left_out", "warnings", "message"),
)


def states(out: Path, known: Mapping[Path, RunState]) -> Iterator[tuple[Path, RunState]]:
    """The report folders below the output folder, in order, each with its state; some are `known`."""
    for place, folders, files in os.walk(out):
        parts = (SCALARS, "figures") if STATE in files else ()  # of a report; runs may be called so, too
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in parts)
        if STATE in files and (state := known.get(Path(place)) or read_state(Path(place))):
            yield Path(place), state


def index_rows(out: Path, known: Mapping[Path, RunState]) -> list[dict[str, Any]]:
    """The rows of the index; a run that is not there any more keeps its row, and its status is `gone`."""
    rows = []
    for folder, state in states(out, known):
        status = state.row.get("status") if os.path.isdir(state.run) else GONE
        report = folder.relative_to(out).as_posix() if (folder / SUMMARY).is_file() else ""
        rows.append({**state.row, "run": state.run, "status": status, "report": report})
    return rows


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of some rows: the fixed ones, then those of the headlines in order of appearance."""
    return list(dict.fromkeys((*COLUMNS, *(name for row in rows for name in row))))


def write_index(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write index.csv, if it is not the same already. Raises OutputError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(out / INDEX, text.getvalue().encode("utf-8", "surrogateescape"))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, unless it holds these bytes already. Raises OutputError."""
    try:
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error

"""index.csv: a row a run, reference and sample, a column a quantity, from the states that lie in the report folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trajcheck.commands.batch.run_state import STATE, RunState, read_state
from trajcheck.errors import OutputError
from trajcheck.files.leftovers import meant_name
from trajcheck.files.walking import walk
from trajcheck.files.whole_files import is_written, write_bytes
from trajcheck.readable import plain
from trajcheck.reports.making.csv_text import rows_text
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.reports.quantities.catalogue import in_order
from trajcheck.runs.user_fields import user_fields
from trajcheck.scalars.saved import FOLDER as SCALARS

INDEX = "index.csv"
GONE = "gone"

#: The first columns, before the run's own fields and the quantities; and the last.
COLUMNS = ("run", "status", "ref", "sample")
FACTS = (
    *("report", "id", "recorded_steps", "first_step", "last_step", "parameters", "optimizer"),
    *("analyzed", "duration", "left_out", "warnings", "message"),
)
#: Of these, sentences and names that may be anybody's.
WORDS = ("id", "optimizer", "left_out", "warnings", "message")


def states(out: Path, known: Mapping[Path, RunState]) -> Iterator[tuple[Path, RunState]]:
    """The report folders below the output folder, in order, each with its state; some are `known`."""
    for place, folders, files in walk(out):
        parts = (SCALARS, "figures") if STATE in files else ()  # of a report; runs may be called so, too
        folders[:] = [name for name in folders if meant_name(name) is None and name not in parts]
        if STATE in files and (state := known.get(Path(place)) or read_state(Path(place))):
            yield Path(place), state


def index_rows(out: Path, known: Mapping[Path, RunState], current: Collection[Path] = ()) -> list[dict[str, Any]]:
    """What is known of each run, its quantities under `rows`; a run that is not there any more stays, and its status is
    `gone`. Of several reports of one run, as when another folder was the archive before, it is that of this call, whose
    report folders are `current`, else the newest."""
    found: dict[str, tuple[tuple[bool, str], dict[str, Any]]] = {}
    for folder, state in states(out, known):
        status = state.row.get("status") if os.path.isdir(state.run) else GONE
        report = folder.relative_to(out).as_posix() if (folder / SUMMARY).is_file() else ""
        row = {**state.row, "run": state.run, "status": status, "report": report}
        rank = folder in current, str(state.row.get("analyzed", ""))
        place = os.path.realpath(state.run)
        if place not in found or rank > found[place][0]:
            found[place] = rank, row
    return [row for _, row in found.values()]


def long_rows(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a run, reference and sample; one for a run of which there is no report. What is not as a batch writes it
    is left out."""
    found = []
    for run in runs:
        user = {f"user.{name}": value for name, value in user_fields(run.get("user")).items()}
        facts = {**{name: run.get(name) for name in (*COLUMNS[:2], *FACTS)}, **user}
        rows = run.get("rows")
        known = [each for each in rows if isinstance(each, Mapping)] if isinstance(rows, list) else []
        for each in known or [{}]:
            values, reasons = (_table(each.get(name)) for name in ("values", "reasons"))
            keys = {name: each.get(name) if isinstance(each.get(name), str) else "" for name in COLUMNS[2:]}
            found.append({**facts, **keys, "values": values, "reasons": reasons})
    return found


def _table(value: Any) -> dict[str, Any]:
    return {str(name): each for name, each in value.items()} if isinstance(value, Mapping) else {}


def quantity_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The quantities of which any row has a value, and their errors, in order."""
    return in_order({name for row in rows for name, value in row["values"].items() if value is not None})


def user_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith("user.")))


def _words(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


def write_index(out: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write index.csv, if it is not the same already. Raises OutputError."""
    rows = long_rows(runs)
    columns = [*COLUMNS, *user_names(rows), *quantity_names(rows), *FACTS]
    cells = ({**row["values"], **row, **{name: _words(row.get(name)) for name in WORDS}} for row in rows)
    text = rows_text(columns, ([each.get(name, "") for name in columns] for each in cells))
    replace_file(out / INDEX, text.encode("utf-8", "backslashreplace"))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, unless it holds these bytes already. Raises OutputError."""
    try:
        if not is_written(path, data):
            write_bytes(path, data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error

"""A CSV log: a line of names, then rows. Which columns are step, loss, rate and gradient norm is said, or told by their
names as trainers and trackers write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trajcheck.commands.schedule.logged import Logged, NoOrderError
from trajcheck.errors import BadInputError
from trajcheck.files.opening import MOST_TEXT, read_text
from trajcheck.readable import one_line, some_of

#: The largest number of a step.
LARGEST = 2**53

#: Names of columns, in small letters with _ between words, without what stands before them: `train/`, or a run's name.
SYNONYMS: Mapping[str, frozenset[str]] = {
    "step": frozenset(("step", "steps", "global_step", "trainer_global_step", "iteration", "iter", "update")),
    "loss": frozenset(("loss", "training_loss")),
    "lr": frozenset(("lr", "learning_rate", "learningrate", "rate")),
    "grad_norm": frozenset(
        ("grad_norm", "gradient_norm", "gradnorm", "gnorm", "total_grad_norm", "global_grad_norm", "grad_l2_norm")
    ),
}


def read_csv_rows(path: Path, columns: Mapping[str, str | None]) -> tuple[Logged, list[str]]:
    """The rows, and what there is to say of them; `columns` names some of them. Raises BadInputError, naming file, line
    and column."""
    try:
        text = read_text(path, MOST_TEXT).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: is no text in UTF-8, as a CSV is.") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}.") from error
    head, _, _ = text.partition("\n")
    rows = csv.reader(text.splitlines(), delimiter="\t" if "\t" in head and "," not in head else ",")
    logged, notes = Logged(), list[str]()
    try:
        header = [name.strip() for name in next(rows, [])]
        places = {name: _place(path, header, name, columns.get(name)) for name in SYNONYMS}
        if places["step"] is None:
            notes.append("the log has no column of steps: its rows are taken for steps 0, 1, 2, ...")
        for number, row in enumerate(each for each in rows if any(cell.strip() for cell in each)):
            line = rows.line_num
            cells = {
                name: "" if place is None or place >= len(row) else row[place].strip() for name, place in places.items()
            }
            step = number if places["step"] is None else _step(path, line, header, places["step"], cells["step"])
            loss, rate, norm = (
                None if not cells[name] else _number(path, line, header[places[name] or 0], cells[name], name)
                for name in ("loss", "lr", "grad_norm")
            )
            logged.add(f"line {line}", step, (loss, rate, norm))
        logged.check_order()
    except csv.Error as error:
        raise BadInputError(f"{path}, line {rows.line_num}: is no CSV: {error}.") from error
    except NoOrderError as error:
        raise BadInputError(f"{path}: {error}.") from error
    return logged, notes


def plain_name(name: str) -> str:
    """A column's name in small letters with _ between words, without what stands before it; '' for the least and
    largest values that a tracker exports beside a column."""
    if name.endswith(("__MIN", "__MAX")):
        return ""
    words = re.sub(r"[^a-z0-9]+", "_", name.rpartition(" - ")[2].lower()).strip("_")
    return re.sub(r"^(train|training)_", "", words)


def _place(path: Path, header: Sequence[str], name: str, given: str | None) -> int | None:
    """Which column it is; None for one that a log may lack."""
    if given is not None:
        found = [place for place, each in enumerate(header) if each == given]
    else:
        found = [place for place, each in enumerate(header) if plain_name(each) in SYNONYMS[name]]
    if len(found) == 1:
        return found[0]
    flag = f"--{name.replace('_', '-')}"
    have = one_line(some_of(header, 12), 300) or "none"
    if found:
        among = one_line(some_of([header[place] for place in found]), 200)
        choose = "give them names of their own" if given is not None else f"choose one by {flag} COL"
        raise BadInputError(f"{path}, line 1: {len(found)} columns may be {name}: {among}; {choose}.")
    if given is not None:
        raise BadInputError(f"{path}, line 1: has no column {one_line(given, 80)} ({flag}); its columns are {have}.")
    if name in ("step", "loss"):
        return None
    known = ", ".join(sorted(SYNONYMS[name]))
    raise BadInputError(
        f"{path}, line 1: has no column {name}, nor one named {known}; its columns are {have}. Name it by {flag} COL."
    )


def _step(path: Path, line: int, header: Sequence[str], place: int, cell: str) -> int:
    found = _float(cell)
    if found is None or not found.is_integer() or not 0 <= found <= LARGEST:
        raise BadInputError(
            f"{path}, line {line}, column {one_line(header[place], 80)}: {one_line(cell, 40) or 'a blank'} is no "
            "number of a step; expected a whole number, 0 or more."
        )
    return int(found)


def _number(path: Path, line: int, column: str, cell: str, name: str) -> float:
    found = _float(cell)
    wanted = "a number" if name == "loss" else "a number, 0 or more"
    if found is None or (found < 0 and name != "loss"):
        raise BadInputError(
            f"{path}, line {line}, column {one_line(column, 80)}: {one_line(cell, 40)} is no {name}; expected {wanted}."
        )
    return found


def _float(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None

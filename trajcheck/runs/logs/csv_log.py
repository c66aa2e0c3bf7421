"""A CSV that the user names, as the log of a run: a line of names, then a row a step; rows of one step complete each
other, and what is blank is not known.

The step t is the number of updates made before: the row has the loss f(x_t; z_t) with which update t began, and the
rate with which it was made.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.files.opening import read_text
from trajcheck.readable import one_line, some_of
from trajcheck.runs.logs.log_choice import LogChoice
from trajcheck.runs.logs.run_log import RunLog

#: Bytes of a log.
MOST_LOG = 2_000_000_000
#: The largest number of a step.
LARGEST = 2**53


def read_csv_log(choice: LogChoice) -> RunLog:
    """The log of one run; `choice` names a file. Raises RunError, naming file, line and column."""
    assert choice.file is not None
    path = Path(choice.file).expanduser()
    try:
        text = read_text(path, MOST_LOG).removeprefix("\ufeff")
    except OSError as error:
        raise RunError(f"--log {path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RunError(f"--log {path}: is no text in UTF-8, as a CSV is.") from error
    reading = _Reading(path)
    lr: dict[int, list[float | None]] = {}
    loss: dict[int, float] = {}
    for line, step, values in reading.rows(text, [choice.step, *([choice.loss] if choice.loss else []), *choice.lr]):
        if choice.loss:
            found = values.pop(0)
            if found is not None and math.isfinite(found):  # one that was not finite is as good as none
                reading.put(loss, step, found, choice.loss, line)
        rates = lr.setdefault(step, [None] * len(values))
        for number, (rate, name) in enumerate(zip(values, choice.lr, strict=True)):
            if rate is None:
                continue
            if not (math.isfinite(rate) and rate >= 0):
                raise RunError(f"--log {path}, line {line}, column {_shown(name)}: {rate} is no learning rate.")
            if rates[number] not in (None, rate):
                raise reading.twice(step, name, rates[number], rate, line)
            rates[number] = rate
    known = {step: tuple(rate for rate in rates if rate is not None) for step, rates in lr.items()}
    whole = {step: rates for step, rates in known.items() if rates and len(rates) == len(lr[step])}
    return RunLog(str(path), whole, loss, files=(str(path),))


class _Reading:
    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, text: str, names: list[str]) -> Iterator[tuple[int, int, list[float | None]]]:
        """The number of each line, its step, and the values of the other columns."""
        head, _, _ = text.partition("\n")
        rows = csv.reader(text.splitlines(), delimiter="\t" if "\t" in head and "," not in head else ",")
        try:
            header = [name.strip() for name in next(rows, [])]
            places = [self._place(header, name) for name in names]
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                cells = [row[place].strip() if place < len(row) else "" for place in places]
                step = self._step(cells[0], names[0], rows.line_num)
                pairs = zip(cells[1:], names[1:], strict=True)
                yield rows.line_num, step, [self._number(cell, name, rows.line_num) for cell, name in pairs]
        except csv.Error as error:
            raise RunError(f"--log {self._path}, line {rows.line_num}: is no CSV: {error}.") from error

    def put(self, known: dict[int, float], step: int, value: float, name: str, line: int) -> None:
        if known.setdefault(step, value) != value:
            raise self.twice(step, name, known[step], value, line)

    def twice(self, step: int, name: str, first: float | None, other: float, line: int) -> RunError:
        return RunError(
            f"--log {self._path}, line {line}: step {step} has {_shown(name)} {other:g} here, and {first:g} before. "
            "Where a job was resumed, keep the rows of the iterates that were recorded."
        )

    def _place(self, header: list[str], name: str) -> int:
        found = [place for place, each in enumerate(header) if each == name]
        if len(found) != 1:
            why = "several columns" if found else "no column"
            columns = one_line(some_of(header, 8), 300) or "none"
            raise RunError(f"--log {self._path}: has {why} {_shown(name)}; its columns are {columns}.")
        return found[0]

    def _step(self, cell: str, name: str, line: int) -> int:
        found = self._number(cell, name, line)
        if found is None or not found.is_integer() or not 0 <= found <= LARGEST:
            raise RunError(
                f"--log {self._path}, line {line}, column {_shown(name)}: {_shown(cell) or 'a blank'} is no number of "
                "a step, 0 or more."
            )
        return int(found)

    def _number(self, cell: str, name: str, line: int) -> float | None:
        try:
            return float(cell) if cell else None
        except ValueError:
            raise RunError(
                f"--log {self._path}, line {line}, column {_shown(name)}: {_shown(cell)} is no number."
            ) from None


def _shown(name: str) -> str:
    return one_line(name, 80)

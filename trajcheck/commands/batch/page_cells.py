"""What stands in the cells of index.html: words, titles and keys to sort by, from the rows of the index.

The rows come from files that lie in report folders, and their names are anybody's: a value of another kind than
expected is an empty cell, and a letter that has no picture, or turns the order of others, is shown as its number.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from trajcheck.commands.report.one_report import PAGE
from trajcheck.readable import one_line, plain
from trajcheck.reports.making.folder import SUMMARY
from trajcheck.reports.page.markup import text
from trajcheck.reports.quantities.catalogue import ERRORS, SHARE, RowQuantity
from trajcheck.reports.quantities.headline import MARKS
from trajcheck.reports.terminal.layout import number

IndexRow = Mapping[str, Any]

EMPTY = "–"
#: The most letters of a message; index.csv has all of it.
LONGEST = 400


class Cell(NamedTuple):
    """`inner` is HTML. `key` is the number to sort by, None for an empty cell; words are sorted by what is shown."""

    inner: str
    key: float | None = None
    title: str = ""


def numeric(value: Any) -> float | None:
    """A number that is finite; None for anything else."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def words_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


# -- the run ----------------------------------------------------------------------------------------------------------


def run_cell(row: IndexRow, out: Path, common: str) -> Cell:
    """The run's path below `common`, which links to its report; a failed run's to what there is of an earlier one."""
    path = str(row["run"])
    name = text(plain(os.path.relpath(path, common) if common else path))
    target = _target(row, out)
    if not target:
        return Cell(name)
    href = text(f"./{quote(os.fsencode(target))}")
    if row.get("status") == "failed":
        return Cell(f'{name} <a href="{href}">(earlier report)</a>')
    return Cell(f'<a href="{href}">{name}</a>')


def _target(row: IndexRow, out: Path) -> str:
    """The page of the row's report below `out`; its steps.csv where there is no page, or only one of earlier tables."""
    report = words_of(row.get("report"))
    if not report:
        return ""
    folder = out / report
    try:
        if (folder / PAGE).stat().st_mtime_ns >= (folder / SUMMARY).stat().st_mtime_ns:
            return f"{report}/{PAGE}"
    except OSError:
        pass
    return f"{report}/steps.csv" if (folder / "steps.csv").is_file() else ""


def status_cell(row: IndexRow) -> Cell:
    status = plain(row.get("status") or "unknown")
    kind = status if status in ("done", "incomplete", "failed", "gone") else "unknown"
    return Cell(f'<span class="{kind}">{text(status)}</span>')


def message_cell(row: IndexRow) -> Cell:
    """Without the run's own path, which stands in the same row."""
    message = words_of(row.get("message")).replace(f"{row['run']}/", "").removeprefix(f"{row['run']}: ")
    message = one_line(message)
    return Cell(text(message if len(message) <= LONGEST else f"{message[: LONGEST - 1]}…"))


def steps_cell(row: IndexRow) -> Cell:
    count, first, last = (numeric(row.get(name)) for name in ("recorded_steps", "first_step", "last_step"))
    if count is None:
        return Cell(EMPTY)
    return Cell(f"{count:,.0f}", count, "" if first is None or last is None else f"steps {first:.0f} to {last:.0f}")


def count_cell(row: IndexRow, name: str) -> Cell:
    value = numeric(row.get(name))
    return Cell(EMPTY) if value is None else Cell(f"{value:,.0f}", value)


def duration_cell(row: IndexRow) -> Cell:
    value = numeric(row.get("duration"))
    return Cell(EMPTY) if value is None else Cell(duration(value), value)


def duration(seconds: float) -> str:
    """3.2 s, 4 min 05 s, 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def analyzed_cell(row: IndexRow) -> Cell:
    return Cell(text(moment(words_of(row.get("analyzed"))) or EMPTY))


def moment(iso: str) -> str:
    """2026-01-31 22:05:09 of 2026-01-31T22:05:09+00:00; other words as they are."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\+00:00", iso)
    return f"{match[1]} {match[2]}" if match else plain(iso)


# -- a reference and sample -------------------------------------------------------------------------------------------


def word_cell(row: IndexRow, name: str) -> Cell:
    """A word; the end of a long one, which says more than its beginning."""
    words = plain(words_of(row.get(name)))
    return Cell(text(short(words)), None, words if words != short(words) else "")


def short(words: str) -> str:
    return words if len(words) <= 28 else f"…{words[-27:]}"


def user_cell(row: IndexRow, name: str) -> Cell:
    """A field that the training gave: a number is sorted as one, words as words."""
    value = row.get(name)
    if isinstance(value, bool) or value is None:
        return Cell("" if value is None else str(value).lower())
    return Cell(text(plain(value)), numeric(value))


def quantity_cell(row: IndexRow, quantity: RowQuantity) -> Cell:
    """A value with its standard error; a dash with the reason where it is empty, and nothing where it makes no sense
    towards the reference of the row."""
    name, values = quantity.name, row["values"]
    value = numeric(values.get(name))
    if value is None:
        why = words_of(row["reasons"].get(name))
        return Cell(EMPTY, None, plain(why)) if why or name in values else Cell("")
    errors = {kind: error for end, kind in ERRORS.items() if (error := numeric(values.get(f"{name}{end}"))) is not None}
    if quantity.kind == SHARE:
        return Cell(f"{100 * value:.3g}%{_spread({kind: 100 * error for kind, error in errors.items()}, '%')}", value)
    spread = _spread(errors)
    mark, title = ("", "")
    if name in ("cosine", "convexity_ratio"):
        mark, title = _of_cosine(row) if name == "cosine" else _of_ratio(row)
    return Cell(f"{number(value)}{mark}{spread}", value, plain(title))


def _spread(errors: Mapping[str, float], unit: str = "") -> str:
    """Each with its kind, as errors of several kinds may stand in one column."""
    return "".join(f' <span class="error">± {number(error, 2)}{unit} {kind}</span>' for kind, error in errors.items())


def _of_cosine(row: IndexRow) -> tuple[str, str]:
    """A * where it is of cos(g_t, x_t - x*), as on the terminal, and which it is of."""
    kind = words_of(row["values"].get("cosine_of"))
    return "*" if kind == "cos" else "", f"mean of {kind}" if kind else ""


def _of_ratio(row: IndexRow) -> tuple[str, str]:
    """Likewise a * where x_t itself stands in num, a ^ where den is the known one; num and den."""
    num, den = (numeric(row["values"].get(f"convexity_{name}")) for name in ("num", "den"))
    kind = words_of(row["values"].get("convexity_of"))
    return MARKS.get(kind, "").strip(), f"num {_or_none(num)}, den {_or_none(den)}" + (f", {kind}" if kind else "")


def _or_none(value: float | None) -> str:
    return "undefined" if value is None else number(value)

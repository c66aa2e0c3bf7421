"""`trajcheck table`, callable from Python: the quantities of some reports as a paper's table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from trajcheck.commands.table.columns import RunRow, choose_columns
from trajcheck.commands.table.content import Table, make_table
from trajcheck.commands.table.forms import FORMS, is_table
from trajcheck.errors import BadInputError, OutputError, UsageError
from trajcheck.files.opening import MOST_TEXT, opened
from trajcheck.files.walking import make_folders
from trajcheck.files.whole_files import write_bytes
from trajcheck.reports.quantities.fields import chosen, fields_of
from trajcheck.reports.quantities.rows import QuantityRow, quantity_rows
from trajcheck.reports.reading.finding import find_reports
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.reading.several_reports import labels
from trajcheck.runs.formats.recognise import run_around


def table(
    reports: Sequence[str | Path],
    format: str = "markdown",
    *,
    columns: Sequence[str] = (),
    refs: Sequence[str] = (),
    samples: Sequence[str] = (),
    group_by: Sequence[str] = (),
    caption: str = "",
    out: str | Path | None = None,
) -> str:
    """The quantities of some reports of `trajcheck analyze`, or of all below folders such as a batch's, as a table.

    Args:
        format: latex (with booktabs), markdown, or csv with all digits.
        columns: quantities as a batch's index has them, fields such as user.optimizer, and mean:, first:, last:, min:
            or max: of a column of steps.csv or references.csv, as mean:rsi.
        refs: only these references, in this order, x_(t-1) being one. samples: only these.
        group_by: fields; a row is then of the runs that agree in them: means and standard errors over the runs.
        out: write it there too, whole; a file that is no such table is not replaced.

    Raises:
        UsageError, BadInputError, OutputError.
    """
    text = made(find_reports([Path(each) for each in reports]), format, columns, refs, samples, group_by, caption)
    if out is not None:
        write_table(Path(out), text)
    return text


def made(
    reports: Sequence[SavedReport],
    form: str,
    columns: Sequence[str],
    refs: Sequence[str],
    samples: Sequence[str],
    group_by: Sequence[str],
    caption: str,
) -> str:
    if form not in FORMS:
        raise UsageError(f"--format {form!r}: expected one of {', '.join(FORMS)}.")
    return FORMS[form](_content(reports, columns, refs, samples, group_by), caption)


def _content(
    reports: Sequence[SavedReport],
    columns: Sequence[str],
    refs: Sequence[str],
    samples: Sequence[str],
    group_by: Sequence[str],
) -> Table:
    fields = fields_of(reports)
    if group_by:
        chosen(fields, group_by)
        for run, count in Counter(report.id for report in reports).items():
            if count > 1:
                twice = ", ".join(str(report.folder) for report in reports if report.id == run)
                raise UsageError(f"{twice}: are reports of one run, which would count {count} times. Name one of them.")
    rows = [
        RunRow(report, label, own, row)
        for report, label, own in zip(reports, labels(reports), fields, strict=True)
        for row in _rows(report)
    ]
    for flag, asked, there in (
        ("--ref", refs, dict.fromkeys(each.row.ref for each in rows)),
        ("--sample", samples, dict.fromkeys(each.row.sample for each in rows)),
    ):
        for word in asked:
            if word not in there:
                raise UsageError(f"{flag} {word!r}: none of these reports has it; they have {', '.join(there)}.")
    rows = [each for each in rows if (not refs or each.row.ref in refs) and (not samples or each.row.sample in samples)]
    if not rows:
        raise UsageError("no report has these references on these samples.")

    return make_table(rows, choose_columns(columns, rows), group_by, refs)


def _rows(report: SavedReport) -> list[QuantityRow]:
    try:
        return quantity_rows(report)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadInputError(
            f"{report.folder}: its summary or a table is not as trajcheck writes it ({error!r:.200}). Make the report "
            "anew; where it is new, this is a bug."
        ) from error


def write_table(path: Path, text: str) -> None:
    """Write the file whole, unless what lies there is no table of trajcheck. Raises OutputError."""
    if (run := run_around(path.parent)) is not None:
        raise OutputError(f"{path}: lies in the recorded run {run}; runs are never written to.")
    try:
        if os.path.lexists(path) and not _is_ours(path):
            raise OutputError(f"{path}: is there already, and is no table of trajcheck's. Choose another --out.")
        make_folders(path.parent)
        write_bytes(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error


def _is_ours(path: Path) -> bool:
    """Whether there is an empty file, or a table of trajcheck's."""
    try:
        with opened(path) as file:
            data = file.read(MOST_TEXT)
    except OSError:
        return False
    return not data or is_table(data)

"""The last-iterate bound of a report, for the terminal."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from trajcheck.readable import in_lines
from trajcheck.reports.quantities.schedule import HEADS, LEGEND, cells, last_rows, sentences
from trajcheck.reports.terminal.layout import fitted, wrapped


def bound_text(frame: pd.DataFrame | None, summary: dict[str, Any]) -> str:
    """Of schedule.csv and the summary."""
    lines = [f"run        {summary['run']['path']}", ""]
    if frame is None:
        return in_lines([*lines, "no bound: the report has neither own, probe nor full samples towards a reference"])
    lines += [*fitted(partial(_rows, frame)), ""]
    lines += [line for said in sentences(frame, summary) for line in wrapped(said, 2)]
    return in_lines([*lines, "", *(line for term, words in LEGEND.items() for line in wrapped(f"{term:<9}{words}", 9))])


def _rows(frame: pd.DataFrame, digits: int) -> list[tuple[str, ...]]:
    return [HEADS, *(cells(row, digits) for row in last_rows(frame))]

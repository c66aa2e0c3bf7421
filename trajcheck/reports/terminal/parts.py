"""What of a report --show prints in the place of its headline: a table with what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from trajcheck.reports.quantities.ledger import Ledger
from trajcheck.reports.terminal.ledger import ledger_text
from trajcheck.reports.terminal.schedule_bound import bound_text


class ShownPart(NamedTuple):
    """`text` makes that for people, `rows` are for programs, None where a cell is empty."""

    text: Callable[[], str]
    rows: Sequence[Mapping[str, Any]]


def _ledger(frame: Any, undefined: pd.DataFrame, summary: Mapping[str, Any]) -> ShownPart:
    ledger = Ledger(frame, undefined)
    return ShownPart(lambda: ledger_text(ledger, summary["run"]["path"]), ledger.records)


def _bound(frame: pd.DataFrame | None, undefined: pd.DataFrame, summary: Mapping[str, Any]) -> ShownPart:
    known = pd.DataFrame() if frame is None else frame
    cells = known.astype(object).where(known.notna(), None).to_dict("records")
    rows = [{str(name): cell for name, cell in row.items()} for row in cells]
    return ShownPart(lambda: bound_text(frame, dict(summary)), rows)


#: By the name of the table, of it (None where the report lacks it), undefined.csv and the summary.
PARTS: Mapping[str, Callable[[Any, pd.DataFrame, Mapping[str, Any]], ShownPart]] = {
    "assumptions": _ledger,
    "schedule": _bound,
}

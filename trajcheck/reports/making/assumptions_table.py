"""assumptions.csv: the ledger, a row an assumption, constant, reference and sample."""

from __future__ import annotations

from collections.abc import Iterable

from trajcheck.metrics.assumptions.entries import NUMBERS
from trajcheck.metrics.columns import column
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.reports.quantities.catalogue import PREVIOUS
from trajcheck.tables.ledger import LedgerRow

#: The columns that hold words.
KEYS = ("assumption", "parameter", "ref", "sample", "formula")


def assumptions_table(rows: Iterable[LedgerRow]) -> CsvTable:
    """All columns are there, empty ones too."""
    table = CsvTable("assumptions", (), always=(*KEYS, *NUMBERS))
    for one, parameter, ref, sample, entry in rows:
        words = dict(zip(KEYS, (one.name, parameter, ref or PREVIOUS, sample, one.formula), strict=True))
        cells = {
            name: column([None], cell) if isinstance(cell, str) else column([cell])
            for name, cell in entry.cells.items()
        }
        table.add(words, cells)
    return table

"""The ledger of assumptions as aligned tables with a sentence a row, for the terminal."""

from __future__ import annotations

from trajcheck.readable import in_lines
from trajcheck.reports.quantities.ledger import HEADS, LEGEND, Ledger, fitting_digits
from trajcheck.reports.terminal.layout import WIDTH, aligned, wrapped

NOTHING = "no assumption is judged from the columns that --metrics names"


def ledger_text(ledger: Ledger, path: str) -> str:
    """`path` is that of the run."""
    lines = [f"run        {path}"]
    for part in ledger.parts:
        table = aligned([HEADS, *part.rows(fitting_digits(part, WIDTH), brief=True)])
        lines += ["", *wrapped(part.title, 2), *table, ""]
        lines += [line for said in part.said for line in wrapped(said, 2)]
    if not ledger.parts:
        return in_lines([*lines, *wrapped(NOTHING, 0)])
    words = {**LEGEND, **ledger.formulas}
    width = max(map(len, words)) + 1
    return in_lines(
        [*lines, "", *(line for term, said in words.items() for line in wrapped(f"{term:<{width}}{said}", width))]
    )

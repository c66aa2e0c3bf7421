"""The ledger of assumptions as aligned tables with a sentence a row, for the terminal."""

from __future__ import annotations

from functools import partial

import pandas as pd

from trajcheck.readable import in_lines
from trajcheck.reports.quantities.ledger import HEADS, LEGEND, parts
from trajcheck.reports.terminal.layout import fitted, wrapped

NOTHING = "no assumption can be judged from the columns of this report; undefined.csv and --metrics say why"


def ledger_text(frame: pd.DataFrame, path: str) -> str:
    """Of assumptions.csv; `path` is that of the run."""
    lines = [f"run        {path}"]
    count = len(list(parts(frame)))
    for place in range(count):
        part = list(parts(frame))[place]
        lines += ["", part.title, *fitted(partial(_rows, frame, place)), ""]
        lines += [line for said in part.said.values() for line in wrapped(said, 2)]
    if not count:
        return in_lines([*lines, *wrapped(NOTHING, 0)])
    return in_lines([*lines, "", *(line for term, words in LEGEND.items() for line in wrapped(f"{term:<9}{words}", 9))])


def _rows(frame: pd.DataFrame, place: int, digits: int) -> list[tuple[str, ...]]:
    return [HEADS, *list(parts(frame, digits))[place].rows]

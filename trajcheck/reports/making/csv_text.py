"""Tables as CSV that every reader takes as it was meant: words are anybody's, and stay words in their cell.

- A cell with a carriage return is quoted, as one with a line feed is: readers end a row at either.
- Half a letter, which UTF-8 does not have, is written as its number, `\\ud800`, and a byte of a name that is none as
  `\\xff`, so that every table is UTF-8; so is what acts on a terminal or turns the direction of writing.
- A word that a spreadsheet would take for a formula, as it begins with = + - or @, has an apostrophe before it. A word
  that is a number has none.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from trajcheck.readable import plain

if TYPE_CHECKING:
    import pandas as pd

#: Rows that are written at a time, so that not all numbers of a long table are objects at once.
ROWS = 4096

_FORMULA = re.compile("[\t\r\n ]*[=+\\-@＝＋－＠]")
#: Letters that act on a terminal, but for tabs and ends of lines; marks of writing direction; halves of letters.
_ACTING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def cell(value: Any) -> Any:
    """What stands in the cell of a value; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    text = _ACTING.sub(lambda letter: plain(letter[0]), value)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def frame_text(frame: pd.DataFrame) -> str:
    """A data frame."""
    text = _Rows()
    writer = csv.writer(text, lineterminator=_END)
    writer.writerow(frame.columns)
    cells = [_cells(column) for _, column in frame.items()]
    for start in range(0, len(frame), ROWS):
        writer.writerows(zip(*(some(start, start + ROWS) for some in cells), strict=True))
    return text.getvalue()


def _cells(column: pd.Series) -> Callable[[int, int], list[Any]]:
    """What stands in the cells of some rows of a column, as the writer takes it: None is an empty cell."""
    if column.dtype == "float64":
        numbers = column.to_numpy()
        return lambda start, stop: [None if each != each else each for each in numbers[start:stop].tolist()]
    nothing: Any = None
    values = column.to_numpy(dtype=object, na_value=nothing).tolist()
    if column.dtype.kind not in "iufb":
        words = {each: cell(each) for each in set(values)}
        values = [words[each] for each in values]
    return lambda start, stop: values[start:stop]


def rows_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows with the names of their columns."""
    text = _Rows()
    csv.writer(text, lineterminator=_END).writerows(map(cell, row) for row in (head, *rows))
    return text.getvalue()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


#: With it in the ends of its rows, the writer quotes what holds either of the two.
_END = "\r\n"


class _Rows(io.StringIO):
    """Takes a row at a time, and ends it with a line feed alone."""

    def write(self, row: str) -> int:
        return super().write(row.removesuffix(_END) + "\n" if row.endswith(_END) else row)

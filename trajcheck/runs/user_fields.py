"""What somebody wrote beside a run, `Recorder(user=...)`, as plain fields: names with a text, a number, true or false.

It is anybody's JSON. Objects within are named by their way, `user={"data": {"name": "digits"}}` being `data.name`;
lists, null and numbers that are not finite are no fields. What of names and texts cannot be printed is shown as its
number, and their length is bounded, as is the number of fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from trajcheck.readable import one_line

#: The most fields of a run, levels of objects within, letters of a name and of a text.
MOST_FIELDS, MOST_LEVELS, LONGEST_NAME, LONGEST_TEXT = 100, 4, 80, 200

#: The largest whole number: those beyond are not exact in every reader of a table.
LARGEST = 2**53

Plain = str | int | float | bool


def user_fields(said: Any) -> dict[str, Plain]:
    """The plain fields of a JSON value, in its order; none where it is no object. Of two with one name, when cleaned,
    the first."""
    found: dict[str, Plain] = {}
    for name, value in _walk(said, "", 1) if isinstance(said, Mapping) else ():
        if len(found) == MOST_FIELDS:
            break
        found.setdefault(name, value)
    return found


def _walk(table: Mapping[Any, Any], before: str, level: int) -> Iterator[tuple[str, Plain]]:
    for key, value in table.items():
        name = before + one_line(key)
        if not name.strip(".") or len(name) > LONGEST_NAME:
            continue
        if isinstance(value, Mapping):
            if level < MOST_LEVELS:
                yield from _walk(value, f"{name}.", level + 1)
        elif isinstance(value, str):
            yield name, one_line(value, LONGEST_TEXT)
        elif _is_number(value):
            yield name, value


def _is_number(value: Any) -> bool:
    """Also true and false. Not a whole number that a table could not hold exactly, nor one that is not finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) <= LARGEST

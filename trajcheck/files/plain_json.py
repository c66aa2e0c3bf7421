"""JSON from a file that somebody else wrote."""

from __future__ import annotations

import json
from typing import Any

#: Levels of lists and objects; a batch of a dozen levels takes some 30.
MOST_LEVELS = 200

_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also where a name occurs twice in an object, and where it is nested
    so deeply that walking it could fail."""
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    if not _clearly_flat(text):
        _check_levels(value)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


#: Of a text in which the value is followed by something else, where levels do not matter.
DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates)


def _clearly_flat(text: str) -> bool:
    """Whether the brackets alone, also those inside strings, cannot be nested deeply: a header has a list a tensor."""
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _NO_BRACKET)
    for _ in range(8):
        if len(brackets) <= MOST_LEVELS:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return False


def _check_levels(value: Any) -> None:
    containers = [value]
    for _ in range(MOST_LEVELS + 1):
        containers = [
            item
            for each in containers
            for item in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
        if not containers:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested more than {MOST_LEVELS} levels deep")

"""The settings of parameter groups, as run.json and step files hold them, checked: archives are from strangers."""

from __future__ import annotations

import math
from typing import Any

#: Most groups of an optimizer, settings of a group, characters of a word, and numbers of a list.
MOST_GROUPS, MOST_SETTINGS, LONGEST_WORD, LONGEST_LIST = 2**16, 256, 200, 64
#: Settings that are numbers, where they are there.
NUMBERS = ("lr", "weight_decay", "momentum", "dampening")


def as_groups(value: Any) -> tuple[dict[str, Any], ...]:
    """A list of objects, one a parameter group, of numbers, flags, words and short lists of numbers, by name; null: a
    setting that is not there. Raises ValueError."""
    if not isinstance(value, list) or len(value) > MOST_GROUPS:
        raise ValueError("groups: expected a list of objects, one for each parameter group")
    return tuple(map(_as_group, value))


def _as_group(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MOST_SETTINGS:
        raise ValueError(f"{value!r:.60} in groups: expected an object")
    return {str(name): _as_setting(str(name), item) for name, item in value.items()}


def _as_setting(name: str, value: Any) -> Any:
    numeric = _is_number(value)
    numbers = isinstance(value, list) and len(value) <= LONGEST_LIST and all(map(_is_number, value))
    word = isinstance(value, str) and len(value) <= LONGEST_WORD
    if not (value is None or numeric or numbers or word) or (
        name in NUMBERS and not (value is None or (numeric and not isinstance(value, bool)))
    ):
        raise ValueError(f"{value!r:.60} as {name[:LONGEST_WORD]!r} in groups")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)

"""What the value of an option must be: functions that say what is wrong with it, '' where nothing is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

#: Characters of a pattern at the most, and processes or threads of a call.
LONGEST_PATTERN, MOST_WORKERS = 1_000, 4_096

#: From a value to what a message says after its colon.
Check = Callable[[Any], str]


def at_least(lowest: int, what: str) -> Check:
    return lambda value: "" if value >= lowest else f"expected {what}, {lowest} or more"


def within(lowest: int, highest: int, what: str) -> Check:
    """A whole number, of which a larger one than `highest` is a slip."""
    return lambda value: "" if lowest <= value <= highest else f"expected {what} from {lowest:,} to {highest:,}"


def between(lowest: float, highest: float, what: str) -> Check:
    return lambda value: "" if lowest <= value <= highest else f"expected {what}"


def positive(what: str) -> Check:
    return lambda value: "" if value > 0 and math.isfinite(value) else f"expected {what}"


def finite(what: str) -> Check:
    return lambda value: "" if math.isfinite(value) else f"expected {what} that is finite"


def among(names: Sequence[str], words: str) -> Check:
    """`words` say what was expected, before the names."""
    return lambda value: "" if value in names else f"{words} {', '.join(names)}"


def pattern(value: str) -> str:
    """A regular expression."""
    if len(value) > LONGEST_PATTERN:
        return f"{len(value):,} characters; expected {LONGEST_PATTERN:,} at most"
    try:
        re.compile(value)
    except re.error as error:
        return f"not a regular expression: {error}"
    return ""

"""Numbers in the names of files and folders: which step a name speaks of, and the order that people mean."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(r"\d+")
#: What stands before the number of a step, where a name has several numbers; 10k are 10,000, 1.5M 1,500,000, 2e5
#: 200,000.
_STEP = re.compile(
    r"(?:global[_-]?step|steps?|iter(?:ation)?s?|(?<![a-z])it|updates?|checkpoint|ckpt)[_=-]?"
    r"(\d(?:\.\d+)?e\d(?![a-z0-9])|\d+(?:\.\d+(?=[km](?![a-z0-9])))?)(?:([km])(?![a-z0-9]))?",
    re.IGNORECASE,
)
#: What stands before the number of an epoch.
_EPOCH = re.compile(r"(?:epochs?|(?<![a-z])ep)[_=-]?(\d+)()", re.IGNORECASE)
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
#: One of several files that are one checkpoint: model-00001-of-00003.
SHARD = re.compile(r"\d+[_-]of[_-]\d+", re.IGNORECASE)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """For sorting: numbers by their value, so that ckpt-2 comes before ckpt-10."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if number % 2 else (1, part) for number, part in enumerate(parts))


def step_in(name: str) -> int | None:
    """The step of which a name speaks: the number after `step`, `iter`, `checkpoint` and the like, else after `epoch`,
    else its only number; None where there is none, or several of which none says what it is."""
    numbers = _NUMBER.findall(name)
    found = step_said(name)
    if found is None and len(numbers) == 1 and len(numbers[0]) < 19 and not _STEP.search(name):
        return int(numbers[0])
    return found


def step_said(name: str) -> int | None:
    """The step of which a name speaks in so many words: after `step` and the like, else after `epoch`; a name that is
    nothing but a number is one. None for any other."""
    found = _STEP.findall(name) or _EPOCH.findall(name) or ([(name, "")] if name.isascii() and name.isdigit() else [])
    if not found or len(found[0][0]) >= 16:
        return None
    step = Fraction(found[0][0]) * _TIMES[found[0][1].lower()]
    return int(step) if step.denominator == 1 else None

"""Numbers in the names of files and folders: which step a name speaks of, and the order that people mean."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\d+")
#: What stands before the number of a step, where a name has several numbers.
_STEP = re.compile(r"(?:global[_-]?step|steps?|iter(?:ation)?s?|it|updates?|checkpoint|ckpt)[_=-]?(\d+)", re.IGNORECASE)
#: What stands before the number of an epoch.
_EPOCH = re.compile(r"(?:epochs?|ep)[_=-]?(\d+)", re.IGNORECASE)
#: One of several files that are one checkpoint: model-00001-of-00003.
SHARD = re.compile(r"\d+[_-]of[_-]\d+", re.IGNORECASE)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """For sorting: numbers by their value, so that ckpt-2 comes before ckpt-10."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if number % 2 else (1, part) for number, part in enumerate(parts))


def step_in(name: str) -> int | None:
    """The step of which a name speaks: the number after `step`, `iter`, `checkpoint` and the like, else after `epoch`,
    else its only number; None where there is none, or several of which none says what it is."""
    if found := _STEP.findall(name):
        return int(found[0]) if len(found[0]) < 19 else None
    if found := _EPOCH.findall(name):
        return int(found[0]) if len(found[0]) < 19 else None
    numbers = _NUMBER.findall(name)
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < 19 else None

"""The entry `contents` of a step's metadata: how far it is known what frozen parameters and buffers held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.runs.formats.native.metadata import as_natural, as_naturals, as_reason, entry
from trajcheck.runs.snapshot import Contents, MissedChange

#: So many changes, and so many stretches of steps, a record may tell of.
MOST = 1000


def read_contents(metadata: Mapping[str, Any]) -> Contents:
    """Raises ValueError for what is no such entry."""
    value = metadata.get("contents")
    if value is None:
        return Contents()
    if not isinstance(value, dict):
        raise ValueError(f"metadata 'contents' is {value!r:.60}; expected an object")
    found = {f"contents.{key}": item for key, item in value.items()}
    sure = entry(found, "contents.sure", as_natural)
    missed = entry(found, "contents.missed", _as_missed) or ()
    return Contents(sure, missed, entry(found, "contents.sampled", _as_ranges) or ())


def _as_missed(value: Any) -> tuple[MissedChange, ...]:
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError
    return tuple(map(_missed_change, value))


def _missed_change(value: Any) -> MissedChange:
    if not isinstance(value, dict) or not isinstance(value.get("tensors"), list) or not value["tensors"]:
        raise ValueError
    after, until = _range([value.get("after"), value.get("until")])
    tensors = tuple(map(as_reason, value["tensors"]))
    return MissedChange(after, until, tensors, max(as_natural(value.get("changed", 0)), len(tensors)))


def _as_ranges(value: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError
    return tuple(map(_range, value))


def _range(value: Any) -> tuple[int, int]:
    after, until = as_naturals(value)
    if after >= until:
        raise ValueError
    return after, until

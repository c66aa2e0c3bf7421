"""The entry `unseen` of a step's metadata: changes of parameters that were no update of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.runs.formats.native.metadata import as_natural, as_reason, entry
from trajcheck.runs.snapshot import Unseen


def read_unseen(metadata: Mapping[str, Any]) -> Unseen | None:
    """None where there is no such entry. Raises ValueError."""
    value = metadata.get("unseen")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"metadata 'unseen' is {value!r:.60}; expected an object")
    found = {f"unseen.{key}": item for key, item in value.items()}
    times, first, last = (entry(found, f"unseen.{key}", as_natural) for key in ("times", "first", "last"))
    if times is None or first is None or last is None or not times or first > last:
        raise ValueError("metadata 'unseen' is not an object of times, first and last, of steps in order")
    tensors = entry(found, "unseen.tensors", _as_names) or ()
    return Unseen(times, first, last, tensors, max(entry(found, "unseen.changed", as_natural) or 0, len(tensors)))


def _as_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(as_reason, value))

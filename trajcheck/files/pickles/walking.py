"""Finding things in what a pickle became: state dicts, pickled modules, values by their keys.

What was read may hold itself, or one object many times: each is visited once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trajcheck.files.pickles.budget import MOST_DEPTH, PickleError
from trajcheck.files.pickles.inert import Inert
from trajcheck.files.pickles.numpy_values import NumpyArray
from trajcheck.files.pickles.tensors import StoredTensor

#: How deep a state dict may lie in a checkpoint.
DEEPEST = 3
_PLAIN = (str, bytes, int, float, bool, type(None))


def table(value: Any) -> Mapping[Any, Any]:
    """A table, or the attributes and contents of an object as one; empty for what is neither."""
    if isinstance(value, dict):
        return value
    return value.attributes if isinstance(value, Inert) else {}


def find(value: Any, *keys: str) -> Any:
    """The value under the first of some keys that is there; "args.lr" is `lr` in `args`. None where there is none."""
    for key in keys:
        found = value
        for part in key.split("."):
            found = table(found).get(part)
        if found is not None:
            return found
    return None


def number(value: Any, *keys: str) -> int | float | None:
    """The number under the first of some keys that holds one; a whole one as int."""
    for key in keys:
        found = find(value, key)
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return int(found) if isinstance(found, float) and found.is_integer() else found
    return None


def plain(value: Any) -> Any:
    """A value of plain Python where it is one: numbers, words, lists and tables of them, few and not deep. None for
    anything else in it."""
    return _plain(value, 6, [10_000])


def _plain(value: Any, levels: int, left: list[int]) -> Any:
    left[0] -= 1
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, NumpyArray) and value.values is not None and value.values.size <= left[0]:
        return value.values.tolist()
    if isinstance(value, (list, tuple)) and levels and len(value) <= left[0]:
        return [_plain(each, levels - 1, left) for each in value]
    if isinstance(value, (dict, Inert)) and levels and len(pairs := table(value)) <= left[0]:
        return {key: _plain(each, levels - 1, left) for key, each in pairs.items() if isinstance(key, _PLAIN)}
    return None


def state_dicts(value: Any) -> dict[str, dict[str, StoredTensor]]:
    """The tables of names to tensors, each by its place: "" is the value itself, "model" what stands under that key."""
    return dict(_state_dicts(value, "", DEEPEST, set()))


def _state_dicts(value: Any, place: str, levels: int, seen: set[int]) -> Iterator[tuple[str, dict[str, StoredTensor]]]:
    if not isinstance(value, dict) or id(value) in seen:
        return
    seen.add(id(value))
    tensors = {name: each for name, each in value.items() if isinstance(name, str) and isinstance(each, StoredTensor)}
    if tensors:
        yield place, tensors
    if levels:
        for key, child in value.items():
            if isinstance(key, str):
                yield from _state_dicts(child, f"{place}.{key}" if place else key, levels - 1, seen)


def modules(value: Any) -> dict[str, str]:
    """The pickled modules of torch, whole objects, by their places: their classes. Not those within one another."""
    found: dict[str, str] = {}
    waiting, seen = [("", value, DEEPEST)], set()
    while waiting:
        place, each, levels = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Inert) and {"_parameters", "_modules"} <= {*each.attributes}:
            found[place] = each.of
        elif levels and isinstance(each, (dict, Inert)):
            children = [(key, child) for key, child in table(each).items() if isinstance(key, str)]
            waiting += [(f"{place}.{key}" if place else key, child, levels - 1) for key, child in reversed(children)]
    return found


def check_depth(value: Any) -> None:
    """Raises PickleError for a value of more levels than anybody can walk."""
    path: list[Iterator[Any]] = [iter((value,))]
    seen: set[int] = set()
    while path:
        each = next(path[-1], path)
        if each is path:
            path.pop()
        elif (inside := _children(each)) is not None and id(each) not in seen:
            seen.add(id(each))
            path.append(inside)
            if len(path) > MOST_DEPTH:
                raise PickleError(f"holds values in one another, more than {MOST_DEPTH:,} deep")


def _children(value: Any) -> Iterator[Any] | None:
    if isinstance(value, dict):
        return (part for pair in value.items() for part in pair)
    if isinstance(value, Inert):
        return value.children()
    return iter(value) if isinstance(value, (list, tuple, set, frozenset)) else None

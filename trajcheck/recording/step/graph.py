"""Autograd's graph as far as it can be walked: marks that are put at nodes, and found again from a loss.

A graph whose backward pass is over has lost what it saved, and not its nodes.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch

_DEPTH, _MOST = 4, 1000  # of an output that is searched for tensors

try:
    from torch._C._autograd import _get_sequence_nr as next_number
except ImportError:  # the numbers are a second way to what marks tell

    def next_number() -> int:
        """The number of the next node that this thread makes."""
        return 0


def in_backward() -> bool:
    """Whether this thread is inside a backward pass."""
    return torch._C._current_graph_task_id() != -1


class Mark:
    """Lies in the metadata of a node for as long as that lives."""

    __slots__ = ("__weakref__",)


def mark_node(node: Any, key: object, passed: Callable[..., Any]) -> weakref.ref[Mark]:
    """Mark a node; `passed` is called whenever a backward pass comes through it. The node alone holds the mark."""
    mark = Mark()
    node.metadata[key] = mark
    node.register_prehook(lambda gradients: void(passed(*gradients)))
    return weakref.ref(mark)


def void(result: Any) -> None:
    """A hook that returns nothing leaves gradients as they are."""


def marks_in(root: Any, key: object, wanted: Collection[Mark]) -> set[Mark]:
    """Those of the marks that the graph of a node has; walks until all are found."""
    found: set[Mark] = set()
    for node in nodes(root):
        if len(found) == len(wanted):
            break
        mark = node.metadata.get(key)
        if mark in wanted:
            found.add(mark)
    return found


def numbers_in(root: Any) -> set[int]:
    """The numbers of all nodes of a graph; each thread counts its own."""
    return {node._sequence_nr() for node in nodes(root) if hasattr(node, "_sequence_nr")}


def nodes(root: Any) -> Iterator[Any]:
    """All nodes of a graph, the nearest first."""
    seen, ahead = {root}, deque([root])
    while ahead:
        node = ahead.popleft()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                ahead.append(before)


def outputs_made_since(output: Any, number: int) -> list[Any]:
    """The nodes, numbered from `number` on, that the tensors of an output come from."""
    made = {tensor.grad_fn: None for tensor in tensors_in(output) if tensor.grad_fn is not None}
    return [node for node in made if not hasattr(node, "_sequence_nr") or node._sequence_nr() >= number]


def tensors_in(output: Any) -> list[torch.Tensor]:
    """The tensors in an output: of dicts, lists, tuples, dataclasses and other objects, some levels deep."""
    return [thing for _, thing in named_tensors_in(output)]


def named_tensors_in(output: Any) -> list[tuple[str, torch.Tensor]]:
    """The same, each with the last key, field or index by which it is reached ("" where it is the output)."""
    found: list[tuple[str, torch.Tensor]] = []
    _search("", output, found, set(), _DEPTH)
    return found


def _search(name: str, thing: Any, found: list[tuple[str, torch.Tensor]], seen: set[int], depth: int) -> None:
    if isinstance(thing, torch.Tensor):
        found.append((name, thing))
        return
    if depth == 0 or len(seen) > _MOST or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Mapping):
        parts = [(str(key), value) for key, value in thing.items()]
    elif isinstance(thing, tuple) and hasattr(thing, "_fields"):
        parts = list(zip(thing._fields, thing, strict=True))
    elif isinstance(thing, list | tuple):
        parts = [(str(i), value) for i, value in enumerate(thing)]
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        parts = [(each.name, getattr(thing, each.name, None)) for each in dataclasses.fields(thing)]
    elif not isinstance(thing, torch.nn.Module | type) and isinstance(getattr(thing, "__dict__", None), dict):
        parts = list(vars(thing).items())
    else:
        return
    for key, value in parts:
        _search(key, value, found, seen, depth - 1)

"""A batch as named tensors and the tree that restores it (batch_tree.py)."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trajcheck.errors import RecorderError
from trajcheck.runs.batch_containers import Fields, FieldTuple
from trajcheck.runs.batch_tree import MOST_LEVELS, PACKED, SCALARS, Tree, plain_tree, renamed

if TYPE_CHECKING:
    import torch

#: Levels of a batch; those of a file may have some more, as several batches are stored as the tuple of them.
DEEPEST = MOST_LEVELS - 10

_PLAIN_DICTS = (dict, OrderedDict, defaultdict)


def flatten(batch: Any) -> tuple[dict[str, torch.Tensor], Tree | None]:
    """The batch's tensors (not copied) by path, and the tree that restores it, or None for a plain batch.

    Raises RecorderError for what a step file cannot hold, naming where it is and its type.
    """
    flattening = _Flattening()
    tree = flattening.node(batch, "", "batch", DEEPEST)
    tensors = flattening.tensors
    return tensors, None if tensors and tree == plain_tree(tensors) else tree


def together(batches: Sequence[tuple[dict[str, torch.Tensor], Tree | None]]) -> tuple[dict[str, torch.Tensor], Any]:
    """The tuple of several flattened batches, as `flatten` would give it."""
    tensors: dict[str, torch.Tensor] = {}
    trees = []
    for number, (own, tree) in enumerate(batches):
        below = partial(_under, str(number))
        trees.append(renamed(plain_tree(own) if tree is None else tree, below))
        tensors.update({below(path): tensor for path, tensor in own.items()})
    whole = {"tuple": trees}
    return tensors, None if tensors and whole == plain_tree(tensors) else whole


def _under(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if path else prefix


class _Flattening:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def node(self, value: Any, path: str, where: str, levels: int) -> Tree:
        import numpy as np
        import torch

        if levels < 0:
            raise RecorderError(f"{where[:200]} is nested more than {DEEPEST} levels deep, which a file cannot hold")
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path, where, levels)
        if isinstance(value, torch.nn.utils.rnn.PackedSequence):
            return {"packed": self._table({name: getattr(value, name) for name in PACKED}, path, where, levels)}
        if isinstance(value, np.generic | np.ndarray):
            return self._numpy(value, path, where, levels)
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        if value is None or isinstance(value, str | bool | int):
            return {"value": value}
        if isinstance(value, float):
            return {"value": value} if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, complex):
            return {"complex": [self.node(part, path, where, levels - 1) for part in (value.real, value.imag)]}
        return self._container(value, path, where, levels)

    def _container(self, value: Any, path: str, where: str, levels: int) -> Tree:
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                return self._items(value, path, where, levels)
            kind = "dict" if type(value) in _PLAIN_DICTS else "mapping"
            return {kind: self._table(value, path, where, levels, "{}[{!r}]")}
        if isinstance(value, list | tuple):
            fields = getattr(value, "_fields", None)
            if isinstance(value, FieldTuple) or (isinstance(value, tuple) and isinstance(fields, tuple)):
                table = self._table(dict(zip(fields or (), value, strict=True)), path, where, levels)
                return {"named": [[name, node] for name, node in table.items()]}
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: self._listed(value, path, where, levels)}
        if isinstance(value, set | frozenset):
            kind = "set" if isinstance(value, set) else "frozenset"
            return {kind: self._listed(sorted(value, key=repr), path, where, levels)}
        if (fields := _fields(value)) is not None:
            return {"object": self._table(fields, path, where, levels)}
        raise RecorderError(
            f"{where} is a {type(value).__name__} ({value!r:.60}), which a step file cannot hold. Expected tensors, "
            "arrays, strings, numbers, None, and dicts, lists, tuples, sets and objects of them: convert it, or leave "
            "it out of what observe() is given."
        )

    def _tensor(self, value: torch.Tensor, path: str, where: str, levels: int) -> Tree:
        import torch

        from trajcheck.files.torch_tensors import storable

        if value.is_nested:
            layout = "jagged" if value.layout is torch.jagged else "strided"
            return {"nested": {layout: self._listed(value.unbind(), path, where, levels)}}
        if not storable(value):
            raise RecorderError(
                f"{where} is a {type(value).__name__} of layout {value.layout} and dtype {value.dtype}, which a step "
                "file cannot hold. Pass observe() a dense tensor instead (.to_dense())."
            )
        self.tensors[path] = value
        return {"tensor": path}

    def _numpy(self, value: Any, path: str, where: str, levels: int) -> Tree:
        import numpy as np
        import torch

        if isinstance(value, np.str_ | np.bytes_):
            return self.node(value.item(), path, where, levels)
        if isinstance(value, np.generic) and value.dtype.name in SCALARS:
            return {"scalar": [value.dtype.name, self.node(value.item(), path, where, levels - 1)]}
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            return {"texts": {"shape": list(value.shape), "items": value.reshape(-1).tolist()}}
        try:
            if isinstance(value, np.generic):
                raise TypeError
            self.tensors[path] = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C", copy=True))
        except TypeError:
            kind = "array" if isinstance(value, np.ndarray) else "number"
            raise RecorderError(
                f"{where} is a numpy {kind} of dtype {value.dtype}, which a step file cannot hold: convert it, or "
                "leave it out of what observe() is given."
            ) from None
        return {"array": path}

    def _items(self, value: Mapping[Any, Any], path: str, where: str, levels: int) -> Tree:
        parts = _components([str(key) for key in value])
        pairs = []
        for (key, item), part in zip(value.items(), parts, strict=True):
            before = len(self.tensors)
            name = self.node(key, f"{path}/{part}", f"a key of {where}", levels - 1)
            if len(self.tensors) != before:
                raise RecorderError(f"{where} has a key of type {type(key).__name__}, which a step file cannot hold")
            pairs.append([name, self.node(item, _join(path, part), f"{where}[{key!r:.40}]", levels - 1)])
        return {"items": pairs}

    def _table(
        self, value: Mapping[str, Any], path: str, where: str, levels: int, named: str = "{}.{}"
    ) -> dict[str, Tree]:
        parts = _components(list(value))
        return {
            key: self.node(item, _join(path, part), named.format(where, key), levels - 1)
            for (key, item), part in zip(value.items(), parts, strict=True)
        }

    def _listed(self, value: Sequence[Any], path: str, where: str, levels: int) -> list[Tree]:
        return [self.node(v, _join(path, str(i)), f"{where}[{i}]", levels - 1) for i, v in enumerate(value)]


def _fields(value: Any) -> Mapping[str, Any] | None:
    """The fields of an object that carries data: of a dataclass, a graph's (`to_dict`), else what it holds by name."""
    import torch

    if isinstance(value, Fields):
        return value.__dict__
    if isinstance(value, torch.nn.Module) or callable(value):
        return None
    if dataclasses.is_dataclass(value):
        return {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)
        }
    if all(hasattr(value, name) for name in ("to_dict", "keys", "__getitem__")) and not hasattr(value, "iloc"):
        found = value.to_dict()
        return found if isinstance(found, dict) and all(isinstance(key, str) for key in found) else None
    held = getattr(value, "__dict__", None)
    return dict(held) if held else None


def _join(path: str, part: str) -> str:
    return f"{path}/{part}" if path else part


def _components(keys: Sequence[str]) -> list[str]:
    """The path component of each key: the key itself, unless it is empty, holds a `/`, or is there already."""
    plain = {key for key in keys if key and "/" not in key}
    used: set[str] = set()
    parts = []
    for key in keys:
        part = key
        if part not in plain or part in used:
            part = key.replace("/", "_") or "_"
            while part in plain or part in used:
                part += "_"
        used.add(part)
        parts.append(part)
    return parts

"""A batch as named tensors, and back.

Paths join the keys and indices of nested dicts, lists and tuples with `/`; a bare tensor has the empty path. A batch
that is *plain* - dicts with string keys, non-empty tuples and tensors - is restored from its paths alone, siblings
whose names are all numbers becoming a tuple. Anything else comes with a tree, which is JSON:

    {"dict": {key: tree}}   {"list": [tree]}   {"tuple": [tree]}   {"tensor": path}   {"value": str, number, bool, null}

Several micro-batches of one step are stored as the tuple of them: `<i>/` begins the paths of micro-batch i.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajcheck.errors import RecorderError, StepFileError

if TYPE_CHECKING:
    import torch

Tree = dict[str, Any]


def flatten(batch: Any) -> tuple[dict[str, torch.Tensor], Tree | None]:
    """The batch's tensors (not copied) by path, and the tree that restores it, or None for a plain batch.

    Mappings of any class come back as dicts, and named tuples as tuples. Raises RecorderError for an object
    that a step file cannot hold, naming where it is and its type.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(batch, "", "batch", tensors)
    return tensors, None if tensors and tree == plain_tree(tensors) else tree


def unflatten(tensors: Mapping[str, Any], tree: Any = None) -> Any:
    """The batch that `flatten` was given, from its tensors (or anything else) by path and its tree.

    Without a tree, the plain batch of those paths. Both may come from a file that somebody else wrote: raises
    StepFileError when they are malformed or do not fit together.
    """
    try:
        return _unflatten(tensors, plain_tree(tensors) if tree is None else tree)
    except RecursionError as error:
        raise StepFileError("batch_tree is nested too deeply to be restored.") from error


def _flatten(value: Any, path: str, where: str, tensors: dict[str, torch.Tensor]) -> Tree:
    import torch

    from trajcheck.files.torch_tensors import CODES

    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.dtype not in CODES or value.is_nested:
            raise RecorderError(
                f"{where} is a tensor of layout {value.layout} and dtype {value.dtype}, which a step file cannot hold. "
                "Pass observe() a dense, real tensor instead (torch.view_as_real, .to_dense())."
            )
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RecorderError(f"{where} has the key {key!r} of type {type(key).__name__}; keys must be strings.")
        parts = _components(list(value))
        return {
            "dict": {
                key: _flatten(item, _join(path, part), f"{where}[{key!r}]", tensors)
                for (key, item), part in zip(value.items(), parts, strict=True)
            }
        }
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(v, _join(path, str(i)), f"{where}[{i}]", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return {"value": value}
    raise RecorderError(
        f"{where} is a {type(value).__name__} ({value!r:.60}), which a step file cannot hold. Expected "
        "tensors, strings, finite numbers, None, and dicts, lists and tuples of them: convert it to "
        "a tensor, or leave it out of what observe() is given."
    )


def _join(path: str, part: str) -> str:
    return f"{path}/{part}" if path else part


def _components(keys: Sequence[str]) -> list[str]:
    """The path component of each key: the key itself, unless it is empty or holds a `/`."""
    taken = {key for key in keys if key and "/" not in key}
    parts = []
    for key in keys:
        part = key
        if part not in taken:
            part = key.replace("/", "_") or "_"
            while part in taken:
                part += "_"
            taken.add(part)
        parts.append(part)
    return parts


def plain_tree(paths: Mapping[str, Any]) -> Tree:
    """The tree of the plain batch with these paths."""
    if "" in paths:
        if len(paths) > 1:
            raise StepFileError(f"a batch is a bare tensor and has {len(paths) - 1} other tensors as well.")
        return {"tensor": ""}
    nested: dict[str, Any] = {}
    for path in paths:
        *parents, last = path.split("/")
        node = nested
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise StepFileError(f"batch tensor {path!r} lies inside another tensor of the batch.")
        if last in node:
            raise StepFileError(f"batch tensor {path!r} has the same name as a group of tensors.")
        node[last] = path
    return _named(nested)


def _named(node: Any) -> Tree:
    if isinstance(node, str):
        return {"tensor": node}
    if node and all(name.isascii() and name.isdigit() for name in node):
        return {"tuple": [_named(node[name]) for name in sorted(node, key=_as_number)]}
    return {"dict": {name: _named(child) for name, child in node.items()}}


def _as_number(digits: str) -> tuple[int, str]:
    """In the order of the numbers, however long: int() takes no more than some thousand digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _unflatten(tensors: Mapping[str, Any], tree: Any) -> Any:
    kind, content = next(iter(tree.items())) if isinstance(tree, dict) and len(tree) == 1 else (None, None)
    if kind == "tensor" and isinstance(content, str):
        if content not in tensors:
            raise StepFileError(f"batch_tree names the tensor {content!r}, which the batch does not have.")
        return tensors[content]
    if kind == "value" and (content is None or isinstance(content, str | bool | int | float)):
        return content
    if kind == "dict" and isinstance(content, dict):
        return {key: _unflatten(tensors, child) for key, child in content.items()}
    if kind in ("list", "tuple") and isinstance(content, list):
        items = [_unflatten(tensors, child) for child in content]
        return items if kind == "list" else tuple(items)
    raise StepFileError(
        f"batch_tree holds {tree!r:.80}; expected an object with one of the keys dict, list, tuple, tensor, value."
    )

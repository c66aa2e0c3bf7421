"""A batch from its named tensors and its tree (batch_tree.py), both of which may be somebody else's."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Mapping
from typing import Any

from trajcheck.errors import StepFileError
from trajcheck.runs.batch_containers import AttributeDict, Fields, FieldTuple
from trajcheck.runs.batch_tree import PACKED, Tree, check_tree, plain_tree


def unflatten(tensors: Mapping[str, Any], tree: Any = None) -> Any:
    """The batch that `flatten` was given, from its tensors (or anything else, where it is plain) by path and its tree.

    Without a tree, the plain batch of those paths. Raises StepFileError where the two are malformed or do not fit
    together.
    """
    tree = plain_tree(tensors) if tree is None else tree
    check_tree(tensors, tree)
    return _build(tensors, tree)


def _build(tensors: Mapping[str, Any], tree: Tree) -> Any:
    [(kind, content)] = tree.items()

    def child(node: Tree) -> Any:
        return _build(tensors, node)

    if kind == "tensor":
        return tensors[content]
    if kind == "value":
        return content
    if kind in ("dict", "mapping", "object"):
        fields = {key: child(node) for key, node in content.items()}
        return fields if kind == "dict" else AttributeDict(fields) if kind == "mapping" else Fields(fields)
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(child(node) for node in content)
    if kind == "named":
        return FieldTuple([name for name, _ in content], [child(node) for _, node in content])
    try:
        return _rarer(kind, content, tensors)
    except (ValueError, TypeError, OverflowError, RuntimeError, AttributeError) as error:
        raise StepFileError(f"batch_tree holds a {kind} that cannot be restored: {str(error)[:200]}.") from error


def _rarer(kind: str, content: Any, tensors: Mapping[str, Any]) -> Any:
    import numpy as np

    def child(node: Tree) -> Any:
        return _build(tensors, node)

    if kind in ("set", "frozenset"):
        return (set if kind == "set" else frozenset)(child(node) for node in content)
    if kind == "items":
        return {child(key): child(node) for key, node in content}
    if kind == "float":
        return float(content)
    if kind == "complex":
        return complex(*(child(node) for node in content))
    if kind == "bytes":
        return base64.b64decode(content, validate=True)
    if kind == "array":
        return tensors[content].detach().cpu().numpy()
    if kind == "scalar":
        return np.dtype(content[0]).type(child(content[1]))
    if kind == "texts":
        if math.prod(content["shape"]) != len(content["items"]):
            raise ValueError(f"{len(content['items'])} texts for the shape {content['shape']}")
        return np.array(content["items"], dtype=str).reshape(content["shape"])
    if kind == "packed":
        return _packed(*(child(content[name]) for name in PACKED))
    return _nested(*((layout, [child(node) for node in parts]) for layout, parts in content.items()))


def _packed(data: Any, batch_sizes: Any, sorted_indices: Any, unsorted_indices: Any) -> Any:
    import torch

    sizes = batch_sizes.cpu()  # where torch wants them
    whole = sizes.dtype is torch.int64 and sizes.ndim == 1 and len(sizes) > 0
    if not whole or int(sizes.min()) < 1 or bool((sizes.diff() > 0).any()) or int(sizes.sum()) != len(data):
        raise ValueError(f"batch sizes {sizes.tolist()!r:.60} for {len(data)} rows")
    for indices in (sorted_indices, unsorted_indices):
        if indices is not None and sorted(indices.tolist()) != list(range(int(sizes[0]))):
            raise ValueError(f"indices {indices.tolist()!r:.60} for {int(sizes[0])} sequences")
    return torch.nn.utils.rnn.PackedSequence(data, sizes, sorted_indices, unsorted_indices)


def _nested(made_of: tuple[str, list[Any]]) -> Any:
    import torch

    layout, parts = made_of
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")  # that it is a prototype
        return torch.nested.nested_tensor(parts, layout=getattr(torch, layout))

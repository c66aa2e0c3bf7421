"""How a batch is made up of named tensors: the format of `batch_tree`, checked, as somebody else may have written it.

Paths join the keys and indices of nested dicts, lists and tuples with `/`; a bare tensor has the empty path. A batch
that is *plain* - dicts with string keys, non-empty tuples and tensors - is restored from its paths alone, siblings
whose names are all numbers becoming a tuple. Anything else comes with a tree, which is JSON, an object with one key:

    tensor      path                                    value       text, number, true, false, null
    dict        {key: tree}                             float       "nan", "inf", "-inf"
    list, tuple [tree]                                  complex     [tree, tree], real and imaginary part
    set, frozenset [tree]                               bytes       base64
    items       [[tree, tree]], a dict of other keys    array       path, of a numpy array
    mapping     {key: tree}, no plain dict              texts       {"shape": [n], "items": [text]}, an array of texts
    named       [[name, tree]], a named tuple           scalar      [dtype, tree], of numpy
    object      {name: tree}, the fields of an object   packed      {field: tree}, a PackedSequence
                                                        nested      {"strided" or "jagged": [tree]}, a nested tensor

Classes are never named: what is no container of Python's, numpy's or torch's comes back as batch_containers.py says.
Several micro-batches of one step are stored as the tuple of them: `<i>/` begins the paths of micro-batch i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trajcheck.errors import StepFileError

Tree = dict[str, Any]

#: Levels of containers in a batch; in JSON one takes up to three, of the 200 that a header may have.
MOST_LEVELS = 50

PACKED = ("data", "batch_sizes", "sorted_indices", "unsorted_indices")
LAYOUTS = ("strided", "jagged")
SCALARS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
NOT_FINITE = ("nan", "inf", "-inf")
_KINDS = (
    *("dict", "list", "tuple", "tensor", "value", "set", "frozenset", "items", "mapping", "named", "object", "float"),
    *("complex", "bytes", "array", "texts", "scalar", "packed", "nested"),
)


def length_of_tuple(paths: Mapping[str, Any], tree: Any = None) -> int | None:
    """How many batches a tree is the tuple of, None where it is no tuple; no tensor is read. Raises StepFileError."""
    tree = plain_tree(paths) if tree is None else tree
    check_tree(paths, tree)
    return len(tree["tuple"]) if "tuple" in tree else None


def check_tree(paths: Mapping[str, Any], tree: Any) -> None:
    """Raise StepFileError for a tree that is malformed, too deep, or names a path that is not there."""

    def leaf(path: str) -> str:
        if path not in paths:
            raise StepFileError(f"batch_tree names the tensor {path!r}, which the batch does not have.")
        return path

    _walk(tree, leaf, MOST_LEVELS)


def renamed(tree: Tree, name: Callable[[str], str]) -> Tree:
    """The same tree over other paths. Raises StepFileError for a tree that is malformed."""
    return _walk(tree, name, MOST_LEVELS)


def nodes_of(tree: Any, kind: str) -> list[Any]:
    """What the nodes of one kind hold: of "array", the paths of numpy arrays."""
    found: list[Any] = []

    def note(each: str, content: Any) -> None:
        if each == kind:
            found.append(content)

    if tree is not None:
        _walk(tree, lambda path: path, MOST_LEVELS, note)
    return found


def _walk(
    tree: Any, leaf: Callable[[str], str], levels: int, note: Callable[[str, Any], object] = lambda kind, content: None
) -> Tree:
    """The tree with `leaf` of each path, every node of it looked at, and `note` told of it."""
    if levels < 0:
        raise StepFileError("batch_tree is nested too deeply to be restored.")

    def child(node: Any) -> Tree:
        return _walk(node, leaf, levels - 1, note)

    kind, content = next(iter(tree.items())) if isinstance(tree, dict) and len(tree) == 1 else (None, None)
    if kind is not None:
        note(kind, content)
    match kind, content:
        case "tensor" | "array", str():
            return {kind: leaf(content)}
        case "value", None | str() | bool() | int() | float():
            return {kind: content}
        case "float", str() if content in NOT_FINITE:
            return {kind: content}
        case "bytes", str():
            return {kind: content}
        case "dict" | "mapping" | "object", dict():
            return {kind: {key: child(node) for key, node in content.items()}}
        case "list" | "tuple" | "set" | "frozenset", list():
            return {kind: [child(node) for node in content]}
        case "complex", [real, imaginary]:
            return {kind: [child(real), child(imaginary)]}
        case "scalar", [str() as dtype, node] if dtype in SCALARS:
            return {kind: [dtype, child(node)]}
        case "items", list() if all(isinstance(pair, list) and len(pair) == 2 for pair in content):
            return {kind: [[child(key), child(node)] for key, node in content]}
        case "named", list() if _named_fields(content):
            return {kind: [[name, child(node)] for name, node in content]}
        case "packed", dict() if content.keys() == set(PACKED):
            return {kind: {name: child(node) for name, node in content.items()}}
        case "nested", dict() if len(content) == 1 and isinstance(content.get(next(iter(content))), list):
            [(layout, parts)] = content.items()
            if layout in LAYOUTS:
                return {kind: {layout: [child(node) for node in parts]}}
        case "texts", {"shape": list() as shape, "items": list() as items, **rest} if not rest:
            if all(type(n) is int and n >= 0 for n in shape) and all(isinstance(text, str) for text in items):
                return {kind: content}
    raise StepFileError(
        f"batch_tree holds {tree!r:.80}; expected an object with one of the keys {', '.join(_KINDS)}, as "
        "docs/run-format.md describes them."
    )


def _named_fields(content: list[Any]) -> bool:
    return all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in content)


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
    try:
        return _named(nested)
    except RecursionError as error:
        raise StepFileError("the paths of the batch are nested too deeply to be restored.") from error


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

"""Where a rank's pieces of tensors belong, as the metadata of its file say: `offset` and `shape`, by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from trajcheck.files.safetensors_header import Layout, TensorFile
from trajcheck.runs.formats.native.metadata import as_naturals, as_table, entry


class Box(NamedTuple):
    """Where a piece begins in its tensor, and that tensor's shape."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]


#: Where pieces belong, as metadata said it last, by the rank and the id of the layout that it came with.
_KNOWN_BOXES: dict[tuple[int, int], tuple[Layout | None, str, dict[str, Box]]] = {}
MOST_LAYOUTS = 1024


def read_boxes(file: TensorFile, metadata: Mapping[str, Any], rank: int) -> dict[str, Box]:
    """Where the pieces that are not whole tensors belong: one object for all files that say the same. Raises
    ValueError."""
    said = json.dumps([metadata.get("offset"), metadata.get("shape")])
    key = rank, id(file.layout)
    layout, known, boxes = _KNOWN_BOXES.get(key, (None, "", {}))
    if layout is not file.layout or known != said:
        if len(_KNOWN_BOXES) >= MOST_LAYOUTS:
            _KNOWN_BOXES.clear()
        boxes = _read_boxes(file, metadata)
        _KNOWN_BOXES[key] = file.layout, said, boxes
    return boxes


def _read_boxes(file: TensorFile, metadata: Mapping[str, Any]) -> dict[str, Box]:
    offsets = entry(metadata, "offset", as_table(as_naturals)) or {}
    shapes = entry(metadata, "shape", as_table(as_naturals)) or {}
    for name in (*offsets, *shapes):
        if name not in offsets or name not in shapes or name not in file.layout.specs:
            raise ValueError(
                f"metadata 'offset' and 'shape' must name the same tensors of the file, and {name!r} is "
                "not in all three"
            )
    return {name: Box(offsets[name], shapes[name]) for name in offsets}

"""A safetensors file written from extents, a megabyte at a time: with the checksums of its tensors in its header.

The header stands first and holds the checksums of what follows, so room is kept for it and it is written last. The file
gets its name when all of it is on the disk.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trajcheck.files.checksums import KEY, METADATA, metadata_checksum
from trajcheck.files.complex_pairs import COMPLEX
from trajcheck.files.extent_reader import BLOCK, ExtentReader
from trajcheck.files.extents import FLOATING, ITEM_SIZE, PAIRS, Extent
from trajcheck.files.folders import OpenFolder

_LARGEST_SUM = 2**32 - 1
_NARROW = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def write_streamed(
    folder: OpenFolder,
    name: str,
    tensors: Mapping[str, Extent],
    metadata: Mapping[str, Any],
    dtypes: Mapping[str, str],
    reader: ExtentReader,
) -> int:
    """Write a file of the tensors; `dtypes` are the codes of floating ones that are rounded to another dtype. How many
    bytes it has. Raises OSError, StepFileError."""
    listed = [each for each in tensors if tensors[each].dtype == PAIRS]
    metadata = {**metadata, **({COMPLEX: sorted(listed)} if listed else {})}
    codes = {each: _code(extent, dtypes.get(each)) for each, extent in tensors.items()}
    order = sorted(tensors, key=lambda each: (-ITEM_SIZE[codes[each]], each))
    table: dict[str, Any] = {}
    position = 0
    for each in order:
        extent = tensors[each]
        shape = [*extent.shape, 2] if extent.dtype == PAIRS else list(extent.shape)
        end = position + (extent.length if codes[each] == extent.dtype or extent.dtype == PAIRS else 0)
        if codes[each] != extent.dtype and extent.dtype != PAIRS:
            end = position + extent.numel * ITEM_SIZE[codes[each]]
        table[each] = {"dtype": codes[each], "shape": shape, "data_offsets": [position, end]}
        position = end
    room = len(_head(table, metadata, dict.fromkeys(order, _LARGEST_SUM), _LARGEST_SUM))
    room += -room % 8
    sums: dict[str, int] = {}

    def blocks() -> Iterator[bytes]:
        yield bytes(room)
        for each in order:
            total = 0
            for block in _blocks(reader, tensors[each], codes[each]):
                total = zlib.crc32(block, total)
                yield block
            sums[each] = total

    with folder.staged(name) as file:
        file.write(blocks())
        head = _head(table, metadata, sums, metadata_checksum(metadata))
        head = (room - 8).to_bytes(8, "little") + head[8:].ljust(room - 8)
        if os.pwrite(file.descriptor, head, 0) != room:
            raise OSError(f"{name}: its header was not written whole")
        os.fsync(file.descriptor)
        file.publish()
    folder.sync()
    return room + position


def _head(table: Mapping[str, Any], metadata: Mapping[str, Any], sums: Mapping[str, int], own: int) -> bytes:
    """The length of a header, which is set later, and the header."""
    text = json.dumps({**metadata, KEY: {**sums, METADATA: own}}, allow_nan=False)
    return bytes(8) + json.dumps({"__metadata__": {"trajcheck": text}, **table}, separators=(",", ":")).encode()


def _code(extent: Extent, wanted: str | None) -> str:
    if extent.dtype == PAIRS:
        return "F64"
    return wanted if wanted is not None and extent.dtype in FLOATING else extent.dtype


def _blocks(reader: ExtentReader, extent: Extent, code: str) -> Iterator[bytes]:
    if code == extent.dtype or extent.dtype == PAIRS:
        for start in range(0, extent.length, 8 * BLOCK):
            yield bytes(reader.raw(extent, start, min(8 * BLOCK, extent.length - start)))
        return
    for start in range(0, extent.numel, BLOCK):
        wide = np.empty(min(BLOCK, extent.numel - start))
        reader.widen(extent, start, wide)
        yield rounded(wide, code)


def rounded(wide: np.ndarray, code: str) -> bytes:
    """Numbers in float64 as bytes in another dtype: to the nearest, ties to even; beyond its range, infinite."""
    with np.errstate(over="ignore"):
        if code != "BF16":
            return wide.astype(_NARROW[code]).tobytes()
        narrow = wide.astype("<f4")
    bits = narrow.view("<u4")
    # float32 numbers that lie half way between two of bfloat16 by rounding alone go where the exact ones would
    halfway = (bits & 0xFFFF) == 0x8000
    exact, near = np.abs(wide[halfway]), np.abs(narrow[halfway].astype(float))
    even = ((bits >> 16) & 1).astype(np.uint64)
    add = even + 0x7FFF
    add[halfway] = np.where(exact > near, 0x8000, np.where(exact < near, 0, even[halfway] * 0x8000))
    result = ((bits.astype(np.uint64) + add) >> 16).astype("<u2")
    nan = np.isnan(narrow)
    result[nan] = ((bits[nan] >> 16) | 0x40).astype("<u2")
    return result.tobytes()

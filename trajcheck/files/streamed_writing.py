"""Writing a safetensors file block by block, for vectors that need not fit in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from trajcheck.errors import OutputError
from trajcheck.files.whole_files import write_blocks


def write_streamed(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype,
    produce: Callable[[str, int, int], np.ndarray],
    block: int,
) -> None:
    """Write tensors of one dtype (float32 or float64), whole or not at all, into a folder that is made if need be;
    `produce(name, start, stop)` gives their elements in C order.

    Raises OutputError when the file cannot be written.
    """
    code = {"<f4": "F32", "<f8": "F64"}[dtype.str]
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def content() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for name, shape in shapes.items():
            numel = math.prod(shape)
            for start in range(0, numel, block):
                yield produce(name, start, min(numel, start + block)).tobytes()

    try:
        path.parent.mkdir(exist_ok=True)
        write_blocks(path, content())
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}. A reference that is averaged or permuted needs this file."
        ) from error

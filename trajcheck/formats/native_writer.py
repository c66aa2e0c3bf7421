"""Writing trajcheck's own run format, version 1: one complete safetensors file a step, and run.json.

A file appears under its name only when it is whole and on the disk: temporary name, flush, fsync, rename, fsync the
folder. A killed job leaves at most a temporary file behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajcheck.formats.checksums import with_checksums

if TYPE_CHECKING:
    import torch

FORMAT = 1
TEMPORARY = ".tmp"


def step_filename(step: int, rank: int = 0, ranks: int = 1) -> str:
    """step-000000120.safetensors; nine digits, so that names sort as numbers do. One of several ranks writes
    step-000000120-of-rank-00003-of-00008.safetensors."""
    return f"step-{step:09d}{'' if ranks == 1 else f'-of-rank-{rank:05d}-of-{ranks:05d}'}.safetensors"


def probe_filename(number: int) -> str:
    """probe-000.safetensors."""
    return f"probe-{number:03d}.safetensors"


def write_step(
    folder: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    rank: int = 0,
    ranks: int = 1,
) -> Path:
    """Write one step file; `tensors` are CPU tensors by their names in the file (`param/...`, `grad/...`).

    `metadata` becomes the JSON under the header's key `trajcheck`; format and step are added. Raises OSError.
    """
    return write_tensors(folder / step_filename(step, rank, ranks), tensors, {"step": step, **metadata})


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a file of CPU tensors with `metadata` in its header; the format and checksums are added. Raises OSError.

    The tensors' own memory is written, largest elements first so that each lies aligned; safetensors.torch.save would
    build a copy of the whole file in memory first.
    """
    import torch

    from trajcheck.formats.tensor_bytes import CODES, as_bytes

    table: dict[str, Any] = {}
    blocks: dict[str, memoryview] = {}
    position = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name].detach().contiguous()
        if tensor.dtype not in CODES or tensor.device != torch.device("cpu"):
            raise TypeError(f"{name} is a tensor of dtype {tensor.dtype} on {tensor.device}; cannot be stored")
        block = as_bytes(tensor)
        end = position + len(block)
        table[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        blocks[name] = block
        position = end
    text = json.dumps(with_checksums({"format": FORMAT, **metadata}, blocks), allow_nan=False)
    head = json.dumps({"__metadata__": {"trajcheck": text}, **table}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    write_blocks(path, [len(head).to_bytes(8, "little") + head, *blocks.values()])
    return path


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError; nothing is then left under either name."""
    write_blocks(path, [data])


def write_blocks(path: Path, blocks: Iterable[bytes | memoryview]) -> None:
    """`write_bytes` of the blocks one after the other."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

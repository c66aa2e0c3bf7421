"""Writing trajcheck's own run format, version 1: one complete safetensors file a step, and run.json.

A file appears under its name only when it is whole and on the disk: temporary name, flush, fsync, rename, fsync the
folder. A killed job leaves at most a temporary file behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajcheck.files.whole_files import write_blocks
from trajcheck.runs.formats.native.checksums import with_checksums

if TYPE_CHECKING:
    import torch

FORMAT = 1


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

    from trajcheck.files.torch_tensors import CODES, as_bytes

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

"""Writing a safetensors file of torch tensors, with checksums in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajcheck.files.checksums import with_checksums
from trajcheck.files.complex_pairs import COMPLEX
from trajcheck.files.whole_files import write_blocks

if TYPE_CHECKING:
    import torch


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a file of `tensor_blocks`. Raises OSError."""
    write_blocks(path, tensor_blocks(tensors, metadata))
    return path


def tensor_blocks(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> list[bytes | memoryview]:
    """A file of CPU tensors with `metadata` in its header, as JSON under the key `trajcheck`, to which checksums are
    added.

    A complex128 tensor becomes one of pairs of float64, and the metadata list it under `complex`.

    The blocks are the tensors' own memory, largest elements first so that each lies aligned; safetensors.torch.save
    would build a copy of the whole file in memory first.
    """
    import torch

    from trajcheck.files.torch_tensors import CODES, as_bytes

    pairs = [name for name, tensor in tensors.items() if tensor.dtype is torch.complex128]
    if pairs:
        tensors = {**tensors, **{name: torch.view_as_real(tensors[name].resolve_conj()) for name in pairs}}
        metadata = {**metadata, COMPLEX: sorted(pairs)}
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
    text = json.dumps(with_checksums(metadata, blocks), allow_nan=False)
    head = json.dumps({"__metadata__": {"trajcheck": text}, **table}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little") + head, *blocks.values()]

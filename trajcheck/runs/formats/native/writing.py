"""Writing trajcheck's own run format, version 1: one complete safetensors file a step, and run.json.

A file appears under its name only when it is whole and on the disk: temporary name, flush, fsync, rename, fsync the
folder. A killed job leaves at most a temporary file behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajcheck.files.tensor_writing import write_tensors

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
    described = {"format": FORMAT, "step": step, **metadata}
    return write_tensors(folder / step_filename(step, rank, ranks), tensors, described)


def write_probe(folder: Path, number: int, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a file of batches set aside, tensors `batch/<i>/...`; the rest as `write_step` does. Raises OSError."""
    return write_tensors(folder / probe_filename(number), tensors, {"format": FORMAT, **metadata})

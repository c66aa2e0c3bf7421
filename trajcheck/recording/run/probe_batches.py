"""Batches that are set aside for measuring, stored once with the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from trajcheck.errors import OutputError, RecorderError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.torch_tensors import read_tensor, same_bytes
from trajcheck.readable import size_text
from trajcheck.recording.model.recorded_model import to_host
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.batch_restoring import unflatten
from trajcheck.runs.batch_tree import Tree
from trajcheck.runs.formats.native.probes import read_probe
from trajcheck.runs.formats.native.writing import probe_filename, write_probe


def store_probe(folder: Path, batches: Iterable[Any]) -> None:
    """Write probe-000.safetensors: tensors `batch/<i>/<path>` of batch i, the tuple of batches as it is flattened.

    Does nothing if the file is there with the same batches. Raises RecorderError if it holds others, if there are none
    or one cannot be stored; OutputError or OSError if the file cannot be written.
    """
    tensors, tree, count = _collect(batches)
    path = folder / probe_filename(0)
    if path.exists():
        if not _holds(path, tensors, tree, count):
            raise RecorderError(
                f"{path} holds other batches than probe() was given. A run has one probe, and its columns would not be "
                "comparable: pass the same batches (of a loader that does not shuffle), or record into another folder."
            )
        return
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise OutputError(
            f"{folder}: {size_text(free)} are free on this disk, and the probe needs {size_text(size)} with as much "
            "again in reserve. Free some space or pass fewer batches."
        )
    metadata: dict[str, Any] = {"batches": count}
    if tree is not None:
        metadata["batch_tree"] = tree
    write_probe(folder, 0, tensors, metadata)


def _collect(batches: Iterable[Any]) -> tuple[dict[str, torch.Tensor], Tree | None, int]:
    """Copies in host memory of all batches: a loader may give the same memory again and again."""
    whole: list[Any] = []
    for batch in batches:
        tensors, tree = flatten(batch)
        if not tensors:
            raise RecorderError(f"probe(): batch {len(whole)} holds no tensor.")
        whole.append(unflatten({path: to_host(tensor) for path, tensor in tensors.items()}, tree))
    if not whole:
        raise RecorderError("probe() was given no batches.")
    flat, tree = flatten(tuple(whole))
    return {f"batch/{path}": tensor for path, tensor in flat.items()}, tree, len(whole)


def _holds(path: Path, tensors: Mapping[str, torch.Tensor], tree: Tree | None, count: int) -> bool:
    """Whether the file has exactly these batches."""
    try:
        there = read_probe(path)
    except StepFileError as error:
        raise RecorderError(f"the probe that is there cannot be used: {error}") from error
    if (there.batches, there.batch_tree, {f"batch/{name}" for name in there.batch}) != (count, tree, tensors.keys()):
        return False
    with ExtentReader() as reader:
        return all(
            same_bytes(read_tensor(reader, there.batch[name.removeprefix("batch/")]), tensor)
            for name, tensor in tensors.items()
        )

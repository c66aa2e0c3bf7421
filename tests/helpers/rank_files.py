"""Runs cut into the files of several ranks by a plain script: safetensors, json and numpy, nothing of the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from run_files import metadata, step_files
from safetensors.numpy import load_file, save_file


def rank_file(step: int, rank: int, ranks: int) -> str:
    return f"step-{step:09d}-of-rank-{rank:05d}-of-{ranks:05d}.safetensors"


def write_rank_step(
    folder: Path, step: int, rank: int, ranks: int, tensors: dict[str, np.ndarray], **meta: Any
) -> Path:
    path = folder / rank_file(step, rank, ranks)
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(whole, path, {"trajcheck": json.dumps({"format": 1, "step": step, **meta})})
    return path


def borders(length: int, ranks: int) -> list[int]:
    """Where the rows of each rank begin: all have as many as the first, as far as there are rows."""
    size = -(-length // ranks)
    return [min(rank * size, length) for rank in range(ranks)] + [length]


def cut_run(source: Path, target: Path, ranks: int, vectors: tuple[str, ...] = ("param", "grad", "window")) -> Path:
    """The run with its vectors cut into rows over the ranks, and its batches into examples.

    Losses are those of the whole batch: with batches of equal size their mean over the ranks is the recorded one.
    """
    target.mkdir()
    if (source / "run.json").exists():
        shutil.copy(source / "run.json", target)
    for path in step_files(source):
        meta, tensors = metadata(path), load_file(path)
        meta.pop("checksum", None)
        step = meta.pop("step")
        for rank in range(ranks):
            held: dict[str, np.ndarray] = {}
            offset, shape = {}, {}
            for name, tensor in tensors.items():
                kind = name.partition("/")[0]
                if kind in (*vectors, "batch"):
                    begin, end = borders(len(tensor), ranks)[rank : rank + 2]
                    if kind == "batch" or begin < end:
                        held[name] = tensor[begin:end]
                    if kind != "batch" and begin < end:
                        offset[name], shape[name] = [begin] + [0] * (tensor.ndim - 1), list(tensor.shape)
                elif rank == 0 or kind not in ("param", "grad"):
                    held[name] = tensor
            write_rank_step(target, step, rank, ranks, held, **meta, offset=offset, shape=shape)
    return target


def changed(folder: Path, step: int, rank: int, ranks: int, **changes: Any) -> None:
    """Metadata of a rank's file, changed; None takes a key away."""
    path = folder / rank_file(step, rank, ranks)
    meta = {**metadata(path), **changes}
    tensors = load_file(path)
    meta.pop("format"), meta.pop("step")
    write_rank_step(folder, step, rank, ranks, tensors, **{k: v for k, v in meta.items() if v is not None})

"""Folders of weights as transformers and others leave them, written by hand from arrays."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

Tensors = dict[str, np.ndarray]
LAYOUTS = ("whole", "shards", "bin", "bin shards", "no index")


def write_weights(folder: Path, tensors: Tensors, layout: str = "whole") -> Path:
    """`layout`: one of LAYOUTS."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "bin" if "bin" in layout else "safetensors"
    stem = "pytorch_model" if kind == "bin" else "model"

    def save(part: Tensors, name: str) -> None:
        if kind == "bin":
            torch.save({key: torch.from_numpy(np.array(value)) for key, value in part.items()}, folder / name)
        else:
            save_file(part, folder / name)

    if layout in ("whole", "bin"):
        save(tensors, f"{stem}.{kind}")
        return folder
    names = list(tensors)
    files = [f"{stem}-{part:05}-of-00002.{kind}" for part in (1, 2)]
    shares = [names[::2], names[1::2]]
    for file, share in zip(files, shares, strict=True):
        save({name: tensors[name] for name in share}, file)
    if layout != "no index":
        table = {name: file for file, share in zip(files, shares, strict=True) for name in share}
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder


def write_state(folder: Path, step: int, log: Sequence[Mapping[str, float]] = (), **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"global_step": step, "epoch": step / 10, "max_steps": 1000, "log_history": list(log), **more}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def in_tar(folder: Path, file: Path, top: str = "") -> Path:
    with tarfile.open(file, "w") as made:
        for path in sorted(folder.rglob("*")):
            made.add(path, f"{top}{path.relative_to(folder)}", recursive=False)
    return file


def in_zip(folder: Path, file: Path, top: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        for path in sorted(folder.rglob("*")):
            made.write(path, f"{top}{path.relative_to(folder)}")
    return file

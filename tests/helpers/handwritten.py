"""Runs and objectives written as a user's plain script would: safetensors and json, nothing of the package."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dense import Record, flat
from plain_run_files import write_plain_step
from quadratics import Layout, Problem
from safetensors.numpy import save_file

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False},
    "momentum": {"momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False},
    "Adam": {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0},
}


def cut(x: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """The flat vector as named tensors."""
    tensors, begin = {}, 0
    for name, shape in layout.items():
        size = int(np.prod(shape))
        tensors[name] = np.array(x[begin : begin + size].reshape(shape))
        begin += size
    assert begin == x.size
    return tensors


def write_run(
    folder: Path,
    records: Sequence[Record],
    layout: Layout | None = None,
    *,
    optimizer: str | None = "SGD",
    dtype: type[np.floating[Any]] = np.float64,
    batch_once: bool = False,
    reverse_odd: bool = False,
    spaced: bool = False,
) -> Path:
    """One step file a record: param/, grad/ and batch/ tensors, and step, loss, lr, tau where the record has them.

    optimizer None leaves run.json out. batch_once stores the (full) batch in the first step alone, the others say
    `batch_from`. reverse_odd puts the tensors of every second file in the opposite order; spaced writes the headers of
    those files with spaces in their JSON, which is as valid.
    """
    folder.mkdir(parents=True)
    for index, record in enumerate(records):
        x = flat(record.x).astype(dtype)
        shapes = layout or {"x": x.shape}
        tensors = {f"param/{name}": value for name, value in cut(x, shapes).items()}
        if record.g is not None:
            g = flat(record.g).astype(dtype)
            tensors |= {f"grad/{name}": value for name, value in cut(g, shapes).items()}
        meta: dict[str, Any] = {"format": 1, "step": record.step}
        if record.loss is not None:
            meta["loss"] = record.loss
        if record.lr is not None:
            meta["lr"] = [record.lr]
        if record.tau is not None:
            meta["tau"] = [record.tau]
        if record.clip != 1.0:
            meta["clip"] = record.clip
        if record.z is not None:
            if batch_once and index > 0:
                meta["batch_from"] = records[0].step
            elif isinstance(record.z, tuple):
                tensors |= {f"batch/{k}": part for k, part in enumerate(record.z)}
            else:
                tensors["batch"] = record.z
        path = folder / f"step-{record.step:09d}.safetensors"
        if reverse_odd and index % 2:
            save_in_order(dict(reversed(tensors.items())), path, {"trajcheck": json.dumps(meta)}, spaced)
        else:
            save_file(tensors, path, metadata={"trajcheck": json.dumps(meta)})
    if optimizer is not None:
        write_run_json(folder, layout or {"x": flat(records[0].x).shape}, optimizer, np.dtype(dtype).name)
    return folder


def write_run_json(folder: Path, layout: Layout, optimizer: str, dtype: str) -> None:
    name = "SGD" if optimizer == "momentum" else optimizer
    parameters = [
        {"name": name, "shape": list(shape), "dtype": dtype, "group": 0, "trainable": True}
        for name, shape in layout.items()
    ]
    run = {
        "format": 1,
        "id": f"handwritten-{folder.name}",
        "parameters": parameters,
        "optimizer": {"name": name, "groups": [{"lr": 0.1, **OPTIMIZERS[optimizer]}]},
    }
    (folder / "run.json").write_text(json.dumps(run))


def save_in_order(
    tensors: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str], spaced: bool = False
) -> None:
    """A safetensors file with its float64 or float32 tensors in the order given; save_file sorts them."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, value in tensors.items():
        begin, end = end, end + value.nbytes
        kind = {"float64": "F64", "float32": "F32"}[value.dtype.name]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=None if spaced else (",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in tensors.values()))


def write_objective(path: Path, problem: Problem, layout: Layout, dtype: str = "float64") -> str:
    """A user's objective file for the problem; returns the spec FILE.py:NAME."""
    path.write_text(
        f"""import operator

import torch

SHAPES = {layout!r}
{problem.torch_loss()}

def loss_of_model(model, batch):
    tensors = [operator.attrgetter(name)(model).reshape(-1) for name in SHAPES]
    return loss(torch.cat(tensors), batch)


def objective():
    model = torch.nn.Module()
    for name, shape in SHAPES.items():
        *path, leaf = name.split(".")
        module = model
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, torch.nn.Parameter(torch.zeros(shape, dtype=torch.{dtype})))
    return model, loss_of_model
"""
    )
    return f"{path}:objective"


def wide_run(folder: Path, steps: int, numel: int) -> Path:
    folder.mkdir()
    stream = np.random.default_rng(0)
    for step in range(steps):
        x = {"param/w": stream.normal(size=numel).astype(np.float32), "grad/w": np.ones(numel, np.float32)}
        write_plain_step(folder, step, x, lr=0.1)
    return folder

"""Run folders read, amended and completed as a user's script would, and a user's objective evaluated by plain torch.

Nothing of the package: safetensors, json and torch alone.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense import Record
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]


class Program:
    """f and grad f of an objective file, FILE.py:NAME, in float64, at points by tensor.

    `data` is the file's third part, the whole data set.
    """

    def __init__(self, spec: str) -> None:
        path, _, name = spec.rpartition(":")
        made = runpy.run_path(path)[name]()
        self.model, self.loss = made[0].double(), made[1]
        self.data: list[Any] = list(made[2]) if len(made) > 2 else []

    def f(self, x: Any, z: Any) -> float:
        with torch.no_grad():
            return float(self._loss(x, z))

    def grad(self, x: Any, z: Any) -> Tensors:
        self.model.zero_grad()
        self._loss(x, z).backward()
        parameters = dict(self.model.named_parameters())
        found = {name: parameters[name].grad for name in x}
        return {name: np.zeros(np.shape(x[name])) if g is None else g.numpy().copy() for name, g in found.items()}

    def _loss(self, x: Mapping[str, np.ndarray], z: Any) -> torch.Tensor:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.as_tensor(np.asarray(x[name], dtype=np.float64)))
        return self.loss(self.model, as_torch(z))


def as_torch(z: Any) -> Any:
    if isinstance(z, tuple | list):
        return tuple(as_torch(part) for part in z)
    return z.double() if isinstance(z, torch.Tensor) and z.is_floating_point() else torch.as_tensor(z)


def step_files(run: Path) -> list[Path]:
    return sorted(run.glob("step-*.safetensors"))


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        return dict(json.loads(file.metadata()["trajcheck"]))


def read_run(run: Path) -> list[Record]:
    """What the step files hold; points and gradients by tensor. For runs of one parameter group."""
    records = []
    for path in step_files(run):
        meta, tensors = metadata(path), load_file(path)
        x, g = part_of(tensors, "param/"), part_of(tensors, "grad/")
        lr, tau = meta.get("lr", [None])[0], meta.get("tau", [None])[0]
        z = batch_of(tensors)
        records.append(Record(meta["step"], x, g or None, lr, tau, z, meta.get("loss"), meta.get("clip", 1.0)))
    return records


def part_of(tensors: Mapping[str, np.ndarray], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def batch_of(tensors: Mapping[str, np.ndarray]) -> Any:
    """A bare tensor or a tuple of tensors; None where the file holds no batch."""
    if "batch" in tensors:
        return tensors["batch"]
    parts = part_of(tensors, "batch/")
    return tuple(parts[str(index)] for index in range(len(parts))) or None


def amend(run: Path, step: int, tensors: Mapping[str, np.ndarray] | None = None, **meta: Any) -> None:
    """Add tensors and metadata to the file of a step."""
    path = run / f"step-{step:09d}.safetensors"
    text = json.dumps({**metadata(path), **meta})
    save_file({**load_file(path), **(tensors or {})}, path, {"trajcheck": text})


def write_probe(run: Path, batches: Iterable[Any], number: int = 0) -> None:
    """The held-aside batches of a run: bare tensors, or tuples of tensors."""
    tensors: Tensors = {}
    count = 0
    for count, batch in enumerate(batches, start=1):
        parts = {f"/{k}": part for k, part in enumerate(batch)} if isinstance(batch, tuple) else {"": batch}
        tensors |= {f"batch/{count - 1}{path}": np.ascontiguousarray(part) for path, part in parts.items()}
    text = json.dumps({"format": 1, "batches": count})
    save_file(tensors, run / f"probe-{number:03d}.safetensors", {"trajcheck": text})


def describe_optimizer(run: Path, name: str, **group: Any) -> None:
    """run.json of a run whose tensors are all in one group."""
    x = read_run(run)[0].x
    assert isinstance(x, Mapping)
    parameters = [
        {"name": each, "shape": list(value.shape), "dtype": value.dtype.name, "group": 0, "trainable": True}
        for each, value in x.items()
    ]
    optimizer = {"name": name, "groups": [group]}
    text = {"format": 1, "id": f"handwritten-{run.name}", "parameters": parameters, "optimizer": optimizer}
    (run / "run.json").write_text(json.dumps(text))

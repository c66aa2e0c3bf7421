"""Archives of small runs, and what a batch left of them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from plain_run_files import write_plain_step

SHAPES = {"layer.weight": (3, 2), "layer.bias": (2,)}
TABLES = ("steps.csv", "references.csv", "undefined.csv")


def write_walk(folder: Path, steps: Iterable[int] = range(6), seed: int = 0) -> Path:
    """A training of the model of `objective_file` on noise, with gradients, batches, losses and rates, and a run.json;
    some steps of it, the same in every call."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(steps)
    stream = np.random.default_rng(seed)
    x = {name: stream.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for step in range(max(wanted) + 1):
        inputs, targets = (stream.normal(size=(4, width)).astype(np.float32) for width in (3, 2))
        apart = inputs @ x["layer.weight"] + x["layer.bias"] - targets
        slope = 2 * apart / apart.size
        g = {"layer.weight": inputs.T @ slope, "layer.bias": slope.sum(axis=0)}
        tensors = {f"param/{name}": value for name, value in x.items()}
        tensors |= {f"grad/{name}": value for name, value in g.items()}
        tensors |= {"batch/0": inputs, "batch/1": targets}
        if step in wanted:
            write_plain_step(folder, step, tensors, loss=float((apart**2).mean()), lr=0.1, tau=0.1 * step)
        x = {name: value - np.float32(0.1) * g[name] for name, value in x.items()}
    if not (folder / "run.json").exists():
        (folder / "run.json").write_text(json.dumps({"format": 1, "id": f"{folder.name}-{seed}"}))
    return folder


def write_archive(folder: Path, names: Iterable[str]) -> Path:
    for seed, name in enumerate(names):
        write_walk(folder / name, seed=seed)
    return folder


def index(out: Path) -> dict[str, dict[str, str]]:
    """The first row of the index of each run, by the names of the runs' folders."""
    found: dict[str, dict[str, str]] = {}
    for row in index_rows(out):
        found.setdefault(Path(row["run"]).name, row)
    return found


def index_rows(out: Path) -> list[dict[str, str]]:
    with open(out / "index.csv", newline="") as file:
        return list(csv.DictReader(file))


def statuses(out: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in index(out).items()}


def tables(report: Path) -> dict[str, bytes]:
    return {name: (report / name).read_bytes() for name in TABLES}


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copy_of(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place))

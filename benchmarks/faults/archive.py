"""A small archive of runs, and the TOML file of a batch over it: what the batch is disturbed at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

#: Snapshots of the short runs, of the long one (cut into chunks among workers), and those that a run grows by.
SHORT, LONG, GROWTH = 12, 40, 4

#: Name of the run that all the others take as a reference, and of the long one.
OTHER, LONGEST = "plain/run00", "replayed/long"

_RATE = 0.05

_OBJECTIVE = """
import torch
from torch import nn

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 3))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x @ self.weight + self.bias

def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()

def linear():
    return Linear(), squared
"""


@dataclass(frozen=True)
class Archive:
    """`runs` holds the archive; `pristine` a copy of it that nothing happens to; `growth` further steps of each run."""

    runs: Path
    pristine: Path
    growth: Path
    config: Path

    @property
    def names(self) -> list[str]:
        return sorted(path.parent.relative_to(self.pristine).as_posix() for path in self.pristine.rglob("run.json"))

    def restore(self) -> None:
        """Everything as it was, with the times that the files had."""
        for name in self.names:
            run, pristine = self.runs / name, self.pristine / name
            if not _same(run, pristine):
                shutil.rmtree(run, ignore_errors=True)
                shutil.copytree(pristine, run)


def make_archive(place: Path, plain: int, replayed: int) -> Archive:
    """`plain` runs without an objective, `replayed` with one, and a long one with one."""
    archive = Archive(place / "runs", place / "pristine", place / "growth", place / "batch.toml")
    lengths = {f"plain/run{number:02d}": SHORT for number in range(plain)}
    lengths |= {f"replayed/run{number:02d}": SHORT for number in range(replayed)} | {LONGEST: LONG}
    for seed, (name, steps) in enumerate(lengths.items()):
        for step, tensors, metadata in walk(seed, steps + GROWTH):
            folder = (archive.pristine if step < steps else archive.growth) / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"step-{step:09d}.safetensors"
            save_file(tensors, path, {"trajcheck": json.dumps(metadata)})
        (archive.pristine / name / "run.json").write_text(json.dumps({"format": 1, "id": name}))
    archive.restore()
    (place / "objective.py").write_text(_OBJECTIVE)
    archive.config.write_text(
        f"""[batch]
interval = 0.0
plots = false

[options]
ref = ["final", "init", "mean:3", "runs/{OTHER}"]

[[runs]]
match = "replayed/*"
objective = "objective.py:linear"
"""
    )
    return archive


def walk(seed: int, steps: int) -> Iterator[tuple[int, dict[str, np.ndarray], dict[str, object]]]:
    """A training of the objective's model on noise, by its own gradients: a replay finds what was recorded."""
    stream = np.random.default_rng(seed)
    x = {name: stream.normal(size=shape).astype(np.float32) for name, shape in (("weight", (6, 3)), ("bias", (3,)))}
    for step in range(steps):
        inputs = stream.normal(size=(4, 6)).astype(np.float32)
        targets = stream.normal(size=(4, 3)).astype(np.float32)
        apart = inputs @ x["weight"] + x["bias"] - targets
        slope = 2 * apart / apart.size
        g = {"weight": inputs.T @ slope, "bias": slope.sum(axis=0)}
        tensors = {f"param/{name}": value for name, value in x.items()}
        tensors |= {f"grad/{name}": value for name, value in g.items()}
        tensors |= {"batch/0": inputs, "batch/1": targets}
        loss = float((apart**2).mean())
        yield step, tensors, {"format": 1, "step": step, "loss": loss, "lr": [_RATE], "tau": [_RATE * step]}
        x = {name: value - np.float32(_RATE) * g[name] for name, value in x.items()}


def _same(run: Path, pristine: Path) -> bool:
    """Whether a run is as it was; a change leaves another size, time or kind of file behind."""
    try:
        here, there = ({path.name: path.lstat() for path in folder.iterdir()} for folder in (run, pristine))
    except OSError:
        return False
    marks = [{name: (s.st_size, s.st_mtime_ns, s.st_mode) for name, s in found.items()} for found in (here, there)]
    return marks[0] == marks[1]

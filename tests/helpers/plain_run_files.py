"""The plain run's files, and what a command came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

SHAPES = {"layer.weight": (3, 2), "layer.bias": (2,)}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def write_plain_step(folder: Path, step: int, tensors: dict[str, np.ndarray], **metadata: Any) -> Path:
    """A step file as anybody would write it."""
    path = folder / f"step-{step:09d}.safetensors"
    save_file(tensors, path, {"trajcheck": json.dumps({"format": 1, "step": step, **metadata})})
    return path

"""Runs to measure on: the shapes of a GPT, random gradients, and the iterates that gradient descent makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from safetensors.numpy import save_file

Shapes = dict[str, tuple[int, ...]]

#: Learning rate of every step, and rows of the position embedding.
RATE, _POSITIONS = 0.05, 1024


def gpt_shapes(parameters: int, layers: int = 12) -> Shapes:
    """Tensors in the shapes of GPT-2, about so many numbers in all, some 70% of them in the layers; 148 with 12."""
    width = 64
    while _numel(_gpt(width + 64, layers, 0)) <= 0.7 * parameters:
        width += 64
    left = parameters - _numel(_gpt(width, layers, 0))
    return _gpt(width, layers, max(1, left // width - _POSITIONS))


def small_shapes(tensors: int = 148, parameters: int = 900_000) -> Shapes:
    """Many small tensors of unequal sizes."""
    sizes = np.linspace(0.2, 1.8, tensors) * parameters / tensors
    return {f"block.{number:03d}.weight": (int(size),) for number, size in enumerate(sizes)}


def _gpt(width: int, layers: int, vocabulary: int) -> Shapes:
    shapes: Shapes = {"wte.weight": (vocabulary, width), "wpe.weight": (_POSITIONS, width)} if vocabulary else {}
    for layer in range(layers):
        name = f"h.{layer}."
        shapes |= {
            name + "ln_1.weight": (width,),
            name + "ln_1.bias": (width,),
            name + "attn.c_attn.weight": (width, 3 * width),
            name + "attn.c_attn.bias": (3 * width,),
            name + "attn.c_proj.weight": (width, width),
            name + "attn.c_proj.bias": (width,),
            name + "ln_2.weight": (width,),
            name + "ln_2.bias": (width,),
            name + "mlp.c_fc.weight": (width, 4 * width),
            name + "mlp.c_fc.bias": (4 * width,),
            name + "mlp.c_proj.weight": (4 * width, width),
            name + "mlp.c_proj.bias": (width,),
        }
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def _numel(shapes: Shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def write_run(folder: Path, shapes: Shapes, steps: int, dtype: str = "float32", seed: int = 0) -> list[Path]:
    """A run of `steps` records at consecutive steps, and its step files in order.

    Gradients are drawn once and turned from step to step, so that making a run costs little more than writing it.
    """
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    x = {name: (0.02 * draw.standard_normal(shape, np.float32)).astype(dtype) for name, shape in shapes.items()}
    g = {name: (0.1 * draw.standard_normal(shape, np.float32)).astype(dtype) for name, shape in shapes.items()}
    files = []
    for step in range(steps):
        tensors = {f"param/{name}": value for name, value in x.items()}
        tensors |= {f"grad/{name}": value for name, value in g.items()}
        record = {"format": 1, "step": step, "loss": float(np.exp(-step / steps)), "lr": [RATE], "tau": [RATE * step]}
        files.append(folder / f"step-{step:09d}.safetensors")
        save_file(tensors, files[-1], {"trajcheck": json.dumps(record)})
        for name, value in x.items():
            value -= value.dtype.type(RATE) * g[name]
            g[name] = np.roll(g[name], 1).reshape(value.shape)
    return files


@contextmanager
def workspace(folder: Path | None) -> Iterator[Path]:
    """A folder that is removed afterwards, in `folder` or where temporary files go."""
    place = Path(mkdtemp(prefix="trajcheck-benchmark-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place)

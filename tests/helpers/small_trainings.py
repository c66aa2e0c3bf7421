"""Trainings of a small network in numpy, cheap enough for many: {step: {tensor: values}}, and the rate of each step.

A perceptron with two hidden layers on noisy classes, its gradient written out; optimizers by their update rules.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Weights = dict[str, np.ndarray]
Training = dict[int, Weights]
Rate = Callable[[int], float]

_SIZES = (12, 20, 20, 4)
_DATA = np.random.default_rng(7)
_X = _DATA.normal(size=(256, 12))
_Y = (np.tanh(_X @ _DATA.normal(size=(12, 4))) + 0.3 * _DATA.normal(size=(256, 4))).argmax(1)


def initial(seed: int, scale: float = 1.0) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    found = []
    for fan, out in pairwise(_SIZES):
        found += [scale * draws.normal(size=(out, fan)) / math.sqrt(fan), np.zeros(out)]
    return found


def gradient(w: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    """Of the mean cross entropy over some rows."""
    x, y = _X[rows], _Y[rows]
    h1 = np.tanh(x @ w[0].T + w[1])
    h2 = np.tanh(h1 @ w[2].T + w[3])
    logits = h2 @ w[4].T + w[5]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    d3 = p / len(y)
    d2 = d3 @ w[4] * (1 - h2**2)
    d1 = d2 @ w[2] * (1 - h1**2)
    return [d1.T @ x, d1.sum(0), d2.T @ h1, d2.sum(0), d3.T @ h2, d3.sum(0)]


def training(
    seed: int = 0,
    steps: int = 300,
    every: int = 10,
    lr: float = 0.2,
    *,
    kind: str = "sgd",
    momentum: float = 0.0,
    decay: float = 0.0,
    rate: Rate = lambda t: 1.0,
    batch: int = 16,
    saved: Iterable[int] | None = None,
    average: float = 0.0,
    bits: int = 32,
    still: range = range(0),
    scale: float = 1.0,
) -> tuple[Training, dict[int, float]]:
    """Weights at each saved step, as float32, and the rates there. `average`: of the weights, saved in their place;
    `bits` 16 rounds all weights to bfloat16 at each step; no gradient comes at the steps `still`."""
    w, draws = initial(seed, scale), np.random.default_rng(1000 + seed)
    first = [np.zeros_like(each) for each in w]
    second = [np.zeros_like(each) for each in w]
    mean = [each.copy() for each in w]
    kept = set(range(0, steps + 1, every) if saved is None else saved)
    found: Training = {}
    rates = {}
    for t in range(steps + 1):
        now = lr * rate(t)
        mean = [average * a + (1 - average) * b for a, b in zip(mean, w, strict=True)]
        if t in kept:
            names = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")
            found[t] = {n: v.astype(np.float32) for n, v in zip(names, mean if average else w, strict=True)}
            rates[t] = now
        g = gradient(w, draws.integers(0, 256, batch) if batch else np.arange(256))
        g = [0 * each for each in g] if t in still else g
        for i, each in enumerate(g):
            first[i] = momentum * first[i] + (each if kind == "sgd" else (1 - momentum) * each)
            second[i] = second[i] + each**2 if kind == "adagrad" else 0.99 * second[i] + 0.01 * each**2
            size = np.sqrt(second[i] / (1 if kind == "adagrad" else 1 - 0.99 ** (t + 1))) + 1e-8
            step = {"sgd": first[i], "sign": np.sign(each)}.get(kind, first[i] / size)
            w[i] = w[i] - now * (step + decay * w[i])
            w[i] = _bfloat16(w[i]) if bits == 16 else w[i]
    return found, rates


def _bfloat16(x: np.ndarray) -> np.ndarray:
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def cosine(period: float, t: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (t % period) / period))


#: Clean archives: optimizers, schedules, spacings, and dynamics that go forth and back.
CLEAN: Mapping[str, Callable[[], tuple[Training, dict[int, float]]]] = {
    "noisy to the end": partial(training, steps=900, every=30, lr=0.4),
    "momentum, cosine": partial(training, lr=0.1, momentum=0.9, rate=partial(cosine, 301)),
    "adam": partial(training, lr=3e-3, kind="adam", momentum=0.9),
    "adamw, warmup from 0": partial(
        training, 120, lr=0.01, kind="adam", momentum=0.9, decay=0.1,
        rate=lambda t: min(t / 20, cosine(121, t)), saved=[*range(20), *range(20, 121, 5)],
    ),
    "restarts": partial(training, 1, 350, 7, 0.5, rate=partial(cosine, 50)),
    "restarts to 0, every step": partial(training, 2, 120, 1, 0.5, momentum=0.9, rate=lambda t: cosine(29, t % 30)),
    "cyclic rates": partial(training, 3, 400, 10, 0.5, rate=lambda t: abs((t % 80) / 40 - 1) + 0.01),
    "a plateau of rate 0": partial(training, 4, rate=lambda t: float(not 100 <= t < 150)),
    "rate 0 at the end": partial(training, 5, rate=lambda t: max(0.0, 1 - t / 200)),
    "logarithmic spacing": partial(training, 6, 512, saved=[0, *(2**k for k in range(10))]),
    "pairs of steps": partial(training, 7, 401, saved=[t + d for t in range(0, 401, 40) for d in (0, 1)]),
    "edge of stability": partial(training, 8, 150, 1, 4.0, batch=0),
    "edge of stability, every second step": partial(training, 9, 200, 2, 3.0, batch=0),
    "large batches, large rate": partial(training, 10, 150, 1, 3.0, batch=128),
    "averaged weights": partial(training, 11, 400, 10, 0.5, average=0.97),
    "spikes": partial(training, 12, 150, 1, 0.1, momentum=0.5, rate=lambda t: 60.0 if t in (50, 110) else 1.0),
    "adam, spikes": partial(
        training, 13, 200, 4, 2e-3, kind="adam", momentum=0.9, rate=lambda t: 60.0 if t == 81 else 1.0
    ),
    "weight decay alone": partial(training, 14, decay=0.01, still=range(100, 200)),
    "rmsprop": partial(training, 15, lr=3e-3, kind="rmsprop"),
    "adagrad": partial(training, 16, lr=0.1, kind="adagrad"),
    "signs": partial(training, 17, lr=2e-3, kind="sign"),
    "bfloat16": partial(training, 18, bits=16),
    "steps of the rate": partial(training, 19, 900, 30, 0.8, rate=lambda t: 0.1 ** (t // 300)),
    "small initialization": partial(training, 20, scale=0.1),
    "few steps": partial(training, 21, 60, 10),
}  # fmt: skip


def write_native(folder: Path, weights: Training, rates: Mapping[int, float] | None = None) -> Path:
    """As a plain script would write a run."""
    folder.mkdir(parents=True)
    for step, each in weights.items():
        said = {"format": 1, "step": step} | ({} if rates is None else {"lr": rates[step]})
        path = folder / f"step-{step:09d}.safetensors"
        save_file({f"param/{n}": v for n, v in each.items()}, path, {"trajcheck": json.dumps(said)})
    return folder


def write_files(folder: Path, weights: Training, rates: Mapping[int, float] | None = None) -> Path:
    """As archives of others lie: a file of weights a step, and no more."""
    folder.mkdir(parents=True)
    for step, each in weights.items():
        save_file(each, folder / f"step_{step}.safetensors")
    return folder


def write_torch(folder: Path, weights: Training, rates: Mapping[int, float] | None = None) -> Path:
    """As nanoGPT leaves them."""
    import torch

    folder.mkdir(parents=True)
    for step, each in weights.items():
        model = {name: torch.from_numpy(x) for name, x in each.items()}
        torch.save({"iter_num": step, "model": model}, folder / f"ckpt-{step}.pt")
    return folder


def write_trainer(folder: Path, weights: Training, rates: Mapping[int, float] | None = None) -> Path:
    """As Hugging Face's Trainer leaves them, in two shards."""
    for step, each in weights.items():
        inner = folder / f"checkpoint-{step}"
        inner.mkdir(parents=True)
        names = list(each)
        where = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
        for file in set(where.values()):
            save_file({name: each[name] for name in names if where[name] == file}, inner / file)
        (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        (inner / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    return folder


def write_distributed(folder: Path, weights: Training, rates: Mapping[int, float] | None = None) -> Path:
    """As torch.distributed.checkpoint leaves them."""
    import torch
    import torch.distributed.checkpoint as dcp

    for step, each in weights.items():
        model = {name: torch.from_numpy(x) for name, x in each.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process
            dcp.save({"model": model}, checkpoint_id=folder / f"step-{step}", no_dist=True)
    return folder

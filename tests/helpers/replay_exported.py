"""Replay runs in a process of its own: python replay_exported.py MODULE RUN... prints one JSON object a run.

MODULE, where the models of the runs were defined, must not be importable here: that is checked first.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from loops import read, recorded_steps
from torch import Tensor

from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample, make_sample


def stored(run: Path, step: int, kind: str) -> dict[str, Tensor]:
    tensors, _ = read(run, step)
    return {name[len(kind) + 1 :]: t for name, t in tensors.items() if name.split("/")[0] == kind}


def sample_of(run: Path, step: int, dtype: torch.dtype | None = None) -> Sample:
    _, metadata = read(run, step)
    return make_sample(
        stored(run, step, "batch"),
        device=torch.device("cpu"),
        tree=metadata.get("batch_tree"),
        micro_batches=metadata.get("micro_batches", 1),
        weights=metadata.get("micro_weights"),
        buffers=stored(run, step, "buffer"),
        generators=stored(run, step, "rng"),
        seed=step,
        dtype=dtype,
        recorded_dtype=torch.float32,
    )


def product(objective: Objective, parameters: dict[str, Tensor], sample: Sample) -> Tensor:
    """H v with a v that everybody can make."""
    hessian = objective.hessian(parameters, sample)
    return hessian.product(torch.cos(torch.arange(hessian.dimension, dtype=torch.float64)).to(hessian.dtype))


def replayed(run: Path, objective: Objective) -> dict[str, Any]:
    """Errors of losses and gradients against what was recorded, and H v at the first step."""
    losses, gradients = [], []
    steps = [step for step in recorded_steps(run) if "loss" in read(run, step)[1]]
    for step in steps:
        recorded = stored(run, step, "grad")
        loss, gradient = objective.loss_and_gradient(stored(run, step, "param"), sample_of(run, step))
        losses.append(float(loss) - read(run, step)[1]["loss"])
        assert recorded.keys() == gradient.keys()
        error = max(float((gradient[name] - g).abs().max()) for name, g in recorded.items())
        gradients.append(error / max(float(g.abs().max()) for g in recorded.values()))
    hv = product(objective, stored(run, steps[0], "param"), sample_of(run, steps[0]))
    return {
        "steps": steps,
        "losses": losses,
        "gradients": gradients,
        "product": hv.tolist(),
        "names": objective.trainable,
        "note": objective.note,
    }


def main() -> None:
    torch.set_num_threads(1)
    module, *runs = sys.argv[1:]
    assert importlib.util.find_spec(module) is None, "the models' code is there"
    for run in map(Path, runs):
        print(json.dumps(replayed(run, load_objective("run", run=run, device="cpu"))))


if __name__ == "__main__":
    main()

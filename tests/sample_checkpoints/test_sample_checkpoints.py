"""sample_checkpoints: small, whole, and of the models that objectives.py makes."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from loops import read, recorded_steps, run_json
from places import SAMPLES

from trajcheck.runs.batch_restoring import unflatten

RUNS = {
    "digits-sgd-seed0": ("digits", list(range(121))),
    "digits-sgd-seed1": ("digits", list(range(121))),
    "breast-cancer-gd": ("breast_cancer", list(range(151))),
    "transformer-adamw": ("transformer", sorted([*range(0, 400, 50), *range(1, 400, 50), 400])),
}


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) <= 8e6
    assert {path.name for path in SAMPLES.iterdir() if (path / "run.json").exists()} == RUNS.keys()


@pytest.mark.parametrize("run", RUNS)
def test_they_are_whole_and_have_their_objective(run: str) -> None:
    objective, steps = RUNS[run]
    assert recorded_steps(SAMPLES / run) == steps
    spec = importlib.util.spec_from_file_location("sample_objectives", SAMPLES / "objectives.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, loss = getattr(module, objective)()
    parameters = {p["name"]: p["shape"] for p in run_json(SAMPLES / run)["parameters"]}
    assert {name: list(p.shape) for name, p in model.named_parameters()} == parameters
    tensors, metadata = read(SAMPLES / run, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"param/{name}"])
    if "rng/cpu" in tensors and run_json(SAMPLES / run)["versions"]["torch"] != torch.__version__:
        model.eval()
    batch = {name[5:].removeprefix("/"): t for name, t in tensors.items() if name.startswith("batch")}
    with torch.random.fork_rng():
        if "rng/cpu" in tensors and model.training:
            torch.set_rng_state(tensors["rng/cpu"][0].clone())
        value = loss(model, unflatten(batch)).item()
    assert value == pytest.approx(metadata["loss"], rel=1e-5 if model.training else 0.2)
    first, last = (read(SAMPLES / run, step)[1]["loss"] for step in (steps[0], steps[-2]))
    assert last < 0.5 * first

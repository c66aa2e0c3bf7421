"""Probe batches that are drawn from an objective's data, for runs that hold none: against dense values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense import Record, flat
from handwritten import write_objective, write_run
from quadratics import Layout, Quadratic, descend

import trajcheck
from trajcheck.errors import ObjectiveError, RunError, UsageError
from trajcheck.objective.common.seeded import choose

PROBLEM = Quadratic.with_spectrum([0.3, 1.0, 2.0], seed=1)
LAYOUT: Layout = {"a": (2,), "b.c": (1,)}
DATA = [np.random.default_rng(seed).normal(size=(4, 3)) for seed in range(7)]


def bare(folder: Path, name: str = "run") -> tuple[Path, list[Record]]:
    """Parameters alone, as somebody else's archive holds them."""
    made = descend(PROBLEM, np.ones(3), [np.zeros((1, 3))] * 5, [0.2] * 5)
    return write_run(folder / name, [Record(r.step, r.x) for r in made], LAYOUT, optimizer=None), made


def with_data(folder: Path) -> str:
    spec = write_objective(folder / "objective.py", PROBLEM, LAYOUT)
    more = f"""
DATA = {[each.tolist() for each in DATA]!r}

def with_data():
    return *objective(), [torch.tensor(each, dtype=torch.float64) for each in DATA]

def shuffled():
    batches = with_data()[2]
    class Shuffled:
        def __iter__(self):
            return iter([batches[i] for i in torch.randperm(len(batches)).tolist()])
    return *objective(), Shuffled()
"""
    (folder / "objective.py").write_text((folder / "objective.py").read_text() + more)
    return spec.replace(":objective", ":with_data")


def test_losses_and_gradients_at_every_step(tmp_path: Path) -> None:
    run, records = bare(tmp_path)
    spec = with_data(tmp_path)
    report = trajcheck.analyze(run, objective=spec, probe=3, data_seed=5, out=tmp_path / "report")
    drawn = report.summary["replay"]["data"]["probe"]
    assert drawn["places"] == choose(3, 7, 5) and drawn["seed"] == 5 and drawn["batches"] == 3
    losses = np.array([[PROBLEM.f(flat(r.x), DATA[i]) for i in drawn["places"]] for r in records])
    norms = np.array([[np.linalg.norm(PROBLEM.grad(flat(r.x), DATA[i])) for i in drawn["places"]] for r in records])
    for name, each in {"loss": losses, "grad_norm": norms}.items():
        np.testing.assert_allclose(report.steps[name], each.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(report.steps[f"{name}_se"], each.std(axis=1, ddof=1) / 3**0.5, rtol=1e-9)
    towards = [
        [PROBLEM.grad(flat(r.x), DATA[i]) @ (flat(r.x) - flat(records[-1].x)) for i in drawn["places"]] for r in records
    ]
    np.testing.assert_allclose(report.references["grad_dot_ref"], np.mean(towards, axis=1), rtol=1e-9, atol=1e-14)
    # they are kept: the same call computes nothing, another seed everything
    again = trajcheck.analyze(run, objective=spec, probe=3, data_seed=5, out=tmp_path / "report")
    assert again.summary["scalars"]["computed"] == 0
    other = trajcheck.analyze(run, objective=spec, probe=3, data_seed=6, out=tmp_path / "report")
    assert other.summary["scalars"]["computed"] == len(records)
    assert other.summary["replay"]["data"]["probe"]["hash"] != drawn["hash"]


def test_flows_and_lines_on_drawn_batches(tmp_path: Path) -> None:
    made = descend(PROBLEM, np.ones(3), [np.zeros((1, 3))] * 5, [0.2] * 5)
    rated = [Record(r.step, r.x, lr=0.2) for r in made]
    runs = [write_run(tmp_path / name, rated, LAYOUT, optimizer=None) for name in ("a", "b")]
    spec = with_data(tmp_path)
    flow = trajcheck.flow(runs[0], spec, probe=2, out=tmp_path / "flow")
    places = flow.summary["replay"]["data"]["probe"]["places"]
    wanted = [np.mean([PROBLEM.f(flat(r.x), DATA[i]) for i in places]) for r in made]
    np.testing.assert_allclose(flow.flow["loss"], wanted, rtol=1e-12)
    compared = trajcheck.compare(
        runs[0], runs[1], objective=spec, sample="probe", probe=2, line=1, out=tmp_path / "compared"
    )
    np.testing.assert_allclose(compared.pairs["line_0"], wanted, rtol=1e-12)
    assert compared.summary["line"]["data"]["probe"]["places"] == places


def test_what_is_refused(tmp_path: Path) -> None:
    run, _ = bare(tmp_path)
    spec = with_data(tmp_path)
    with pytest.raises(ObjectiveError, match=r"--probe 2 draws batches from the objective's data, and it gives none"):
        trajcheck.analyze(run, objective=spec.replace("with_data", "objective"), probe=2, out=tmp_path / "report")
    with pytest.raises(ObjectiveError, match="--probe 8: its data set has 7 batches"):
        trajcheck.analyze(run, objective=spec, probe=8, out=tmp_path / "report")
    with pytest.raises(UsageError, match="--probe 2 draws batches for --sample probe: add it"):
        trajcheck.analyze(run, objective=spec, probe=2, sample="full", out=tmp_path / "report")
    with pytest.raises(RunError, match=r"no probe batches were stored .*--probe N draws some of the objective's data"):
        trajcheck.analyze(run, objective=spec, sample="probe", out=tmp_path / "report")
    for options, words in (
        ({"data": "x"}, "--data x is of --objective hf-causal-lm and hf-image-classification"),
        ({"objective": "hf-causal-lm"}, r"--objective hf-causal-lm needs the data .*--data, tokens\.bin"),
        (
            {"objective": "hf-image-classification", "data": "x", "sequence_length": 4},
            "--sequence-length 4 is of tokens",
        ),
        ({"objective": None, "probe": 2}, "--probe needs --objective"),
    ):
        given: dict[str, Any] = {"objective": spec, **options}
        with pytest.raises(UsageError, match=words):
            trajcheck.analyze(run, out=tmp_path / "report", **given)
    nothing = trajcheck.analyze(run, objective=spec, out=tmp_path / "report")
    assert "no batch was recorded at this step. --sample probe --probe N draws N" in nothing.incomplete[0]


def test_a_data_set_that_shuffles_is_drawn_from_in_one_order(tmp_path: Path) -> None:
    run, _ = bare(tmp_path)
    spec = with_data(tmp_path).replace("with_data", "shuffled")
    found = [trajcheck.analyze(run, objective=spec, probe=3, out=tmp_path / name) for name in ("one", "other")]
    assert len({json.dumps(each.summary["replay"]["data"]) for each in found}) == 1
    assert (found[0].steps["loss"] == found[1].steps["loss"]).all()


def test_the_data_set_alone_is_replayed_in_float64_too(tmp_path: Path) -> None:
    """As every other sample of a small model in float32, which files of torch.save hold no batches of."""
    draw = np.random.default_rng(0)
    points = [draw.normal(size=3).astype(np.float32) for _ in range(5)]
    data = [draw.normal(size=(4, 3)) for _ in range(3)]
    (tmp_path / "run").mkdir()
    for step, x in enumerate(points):
        torch.save({"model": {"w": torch.from_numpy(x)}, "iter_num": step}, tmp_path / "run" / f"ckpt-{step}.pt")
    (tmp_path / "objective.py").write_text(f"""
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))

def objective():
    batches = [torch.tensor(each, dtype=torch.float64) for each in {[each.tolist() for each in data]!r}]
    return Model(), lambda model, z: ((model.w - z) ** 2).sum(1).exp().mean(), batches
""")
    spec = f"{tmp_path / 'objective.py'}:objective"
    report = trajcheck.analyze(tmp_path / "run", objective=spec, sample="full", out=tmp_path / "report")
    assert report.summary["replay"]["dtype"] == "float64"
    wanted = [np.mean([np.exp(((x - z) ** 2).sum(1)).mean() for z in data]) for x in np.array(points, dtype=np.float64)]
    np.testing.assert_allclose(report.steps["loss"], wanted, rtol=1e-13)

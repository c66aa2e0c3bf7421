"""Probe batches and data sets: the same masks at every point and step, and each record's own buffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dense import Record
from frames import col
from handwritten import write_run
from quadratics import Layout
from run_files import Program, amend, read_run, write_probe
from safetensors.numpy import load_file
from sample_cases import analyzed, rows_of

LAYOUT: Layout = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}
STEPS = 6
OBJECTIVE = """
import torch
from torch import nn

def objective():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    model.register_buffer("factor", torch.ones((), dtype=torch.float64))
    return model, loss, [(x, x.sum(1, keepdim=True)) for x in torch.arange(18.0, dtype=torch.float64).view(2, 3, 3) / 9]

def loss(model, batch):
    inputs, targets = batch
    return model.factor * (model(inputs) - targets).square().mean()
"""


def dropout_run(folder: Path, factors: bool = False) -> tuple[Path, str, Program]:
    """A walk of a network with dropout; with `factors`, a buffer that is t + 1 at step t and multiplies the loss."""
    rng = np.random.default_rng(4)
    size = sum(int(np.prod(shape)) for shape in LAYOUT.values())
    records = [
        Record(t, rng.normal(size=size), lr=0.1, z=(rng.normal(size=(5, 3)), rng.normal(size=(5, 1))))
        for t in range(STEPS)
    ]
    run = write_run(folder / "run", records, LAYOUT)
    write_probe(run, [(rng.normal(size=(5, 3)), rng.normal(size=(5, 1))) for _ in range(4)])
    if factors:
        for t in range(STEPS):
            amend(run, t, {"buffer/factor": np.array(t + 1.0)})
    (folder / "objective.py").write_text(OBJECTIVE)
    objective = f"{folder / 'objective.py'}:objective"
    return run, objective, Program(objective)


def seeded_losses(program: Program, run: Path, batches: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """f(x_t; batch i) with the masks of seed i: [steps, batches]."""
    losses = np.empty((STEPS, len(batches)))
    for t, record in enumerate(read_run(run)):
        assert isinstance(record.x, dict)
        for i, batch in enumerate(batches):
            torch.manual_seed(i)
            losses[t, i] = program.f(record.x, batch)
    return losses


@pytest.mark.parametrize("sample", ["probe", "full"])
def test_batch_i_has_the_masks_of_seed_i_everywhere(sample: str, tmp_path: Path) -> None:
    run, objective, program = dropout_run(tmp_path)
    report = analyzed(run, objective, tmp_path / "report", refs=["final"], sample=(sample,))
    batches = program.data if sample == "full" else probe_of(run)
    losses = seeded_losses(program, run, batches).mean(axis=1)
    np.testing.assert_allclose(col(report.steps, "loss"), losses, rtol=1e-12)
    np.testing.assert_allclose(col(report.references, "loss_ref"), losses[-1], rtol=1e-12)
    np.testing.assert_allclose(col(report.steps, "loss_change")[1:], np.diff(losses), rtol=1e-9)


def probe_of(run: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    tensors = load_file(run / "probe-000.safetensors")
    return [(tensors[f"batch/{i}/0"], tensors[f"batch/{i}/1"]) for i in range(4)]


@pytest.mark.parametrize("sample", ["own", "probe", "full"])
def test_each_point_of_a_difference_has_its_own_buffers(sample: str, tmp_path: Path) -> None:
    """The buffer multiplies the loss: with it, f at the iterate of row t is t + 1 times what it is without; on own
    samples at x_{t-1} and x* too, since there a buffer that changes belongs to the sample."""
    plain, objective, _ = dropout_run(tmp_path / "plain")
    scaled, same, _ = dropout_run(tmp_path / "scaled", factors=True)
    one = analyzed(plain, objective, tmp_path / "one", refs=["init"], sample=(sample,))
    other = analyzed(scaled, same, tmp_path / "other", refs=["init"], sample=(sample,))
    factor = np.arange(1.0, STEPS + 1)
    earlier, first = (factor, factor) if sample == "own" else (factor - 1, 1.0)
    was, now = (rows_of(each.steps, sample) for each in (one, other))
    before = col(was, "loss") - col(was, "loss_change")
    expected = {
        "loss": factor * col(was, "loss"),
        "loss_change": factor * col(was, "loss") - earlier * before,
        "update_corr": factor * col(was, "update_corr"),
        "descent": (factor - 1) * col(was, "descent"),  # of g_{t-1}
    }
    for name, values in expected.items():
        np.testing.assert_allclose(col(now, name), values, rtol=1e-9, atol=1e-9, err_msg=name)
    was, now = (rows_of(each.references, sample) for each in (one, other))
    dot = col(was, "grad_dot_ref")
    expected = {
        "loss_ref": first * col(was, "loss_ref"),
        "inst_gap": factor * col(was, "loss") - first * col(was, "loss_ref") - factor * dot,
        "rsi": factor * col(was, "rsi"),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(col(now, name), values, rtol=1e-9, atol=1e-9, err_msg=name)

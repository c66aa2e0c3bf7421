"""From a training loop to the report: what the Recorder stored of probe batches and windows is what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense import Record, flat
from dense_samples import Task, every_step_num, on_probe
from frames import assert_close, col
from run_files import Program, Tensors, read_run
from sample_cases import analyzed, assert_table, point, rows_of

from trajcheck import Recorder
from trajcheck.metrics.resolution import BOUND

STEPS, EVERY = 40, 8
OBJECTIVE = """
from torch import nn

def objective():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double(), loss

def loss(model, batch):
    inputs, targets = batch
    return (model(inputs) - targets).square().mean()
"""


def batches_of(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        inputs = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        batches.append((inputs, torch.sin(inputs.sum(1, keepdim=True))))
    return batches


def tensors_of(model: torch.nn.Module, gradient: bool = False) -> Tensors:
    found = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if gradient else parameter.detach()
        assert value is not None
        found[name] = value.numpy().copy()
    return found


def recorded(folder: Path, clip: float | None) -> tuple[Path, str, list[Record]]:
    """SGD with momentum, every 8th step recorded; and every step, as it went."""
    (folder / "objective.py").write_text(OBJECTIVE)
    objective = f"{folder / 'objective.py'}:objective"
    torch.manual_seed(0)
    program = Program(objective)
    model, loss_of = program.model, program.loss
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    every = []
    how: dict[str, Any] = {"every": EVERY, "windows": True}
    with Recorder(folder / "run", model, optimizer, **how) as recorder:
        store_probe: Any = recorder
        store_probe.probe(batches_of(5, seed=2))
        for t, batch in enumerate(batches_of(STEPS, seed=1)):
            loss = loss_of(model, batch)
            loss.backward()
            every.append(Record(t, tensors_of(model), tensors_of(model, gradient=True), 0.05, loss=loss.item()))
            recorder.observe(batch, loss)
            if clip is not None:
                recorder.clip_grad_norm_(clip)
            optimizer.step()
            optimizer.zero_grad()
    return folder / "run", objective, [*every, Record(STEPS, tensors_of(model))]


@pytest.mark.parametrize("clip", [None, 0.1])
def test_windows_of_a_recorded_run_sum_all_steps(clip: float | None, tmp_path: Path) -> None:
    run, objective, every = recorded(tmp_path, clip)
    report = analyzed(run, objective, tmp_path / "report", refs=["final", "init"])
    steps = report.steps["step"].tolist()
    assert steps == list(range(0, STEPS + 1, EVERY))
    for spec, star in (("final", every[-1].x), ("init", every[0].x)):
        rows = rows_of(report.references, "own", spec)
        assert_close(rows, "window_num", every_step_num(every, flat(star), steps), spec)
    losses = np.cumsum([0.0, *(record.loss for record in every[:-1])])
    np.testing.assert_allclose(col(report.steps, "window_loss_sum"), losses[::EVERY], rtol=1e-9)


def test_the_probe_of_a_recorded_run_is_what_the_loop_gave(tmp_path: Path) -> None:
    run, objective, _ = recorded(tmp_path, None)
    read = read_run(run)
    references = {spec: point(read, spec) for spec in ("final", "init")}
    program = Program(objective)
    task = Task(read, references, program, BOUND, batches_of(5, seed=2), optimizer="momentum")
    report = analyzed(run, objective, tmp_path / "report", refs=list(references), sample=("own", "probe"))
    expected = on_probe(task)
    assert_table(rows_of(report.steps, "probe"), expected.steps, "steps")
    for spec, columns in expected.references.items():
        assert_table(rows_of(report.references, "probe", spec), columns, spec)

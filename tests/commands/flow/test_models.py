"""Models with frozen, tied and random parts, and with buffers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from known_flows import descent, exact, quadratic
from odd_network import Odd, squared
from run_files import amend
from torch import nn

import trajcheck
from trajcheck import Recorder
from trajcheck.objective.objective import Objective

ODD = """
from odd_network import Odd, squared


def plain():
    return Odd().double(), squared


def dropped():
    return Odd(0.5).double(), squared
"""


def record_odd(folder: Path, dropout: float, count: int, rate: float) -> tuple[Path, nn.Module, Any]:
    model = Odd(dropout).double()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    stream = torch.Generator().manual_seed(1)
    batch = tuple(torch.randn(16, n, generator=stream, dtype=torch.float64) for n in (3, 4))
    with Recorder(folder / "run", model, optimizer, every=1) as recorder:
        for _ in range(count):
            optimizer.zero_grad()
            loss = squared(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
    (folder / "odd.py").write_text(ODD)
    return folder / "run", model, batch


def test_frozen_tied_and_normalised(tmp_path: Path) -> None:
    """The flow moves what trains, tied weights as one; smaller steps come nearer to it."""
    distances = []
    for part in (1, 4):
        folder = tmp_path / str(part)
        folder.mkdir()
        run, _, _ = record_odd(folder, 0.0, 20 * part, 0.1 / part)
        report = trajcheck.flow(
            run, f"{folder / 'odd.py'}:plain", rtol=1e-6, curvature=10 * part, out=folder / "report"
        )
        assert not any("not gradient descent" in warning for warning in report.summary["warnings"])
        assert report.summary["flow"]["random"] is False and report.summary["run"]["parameters"] == 4 + 8 + 16 + 4 + 4
        assert report.flow["flow_dist"].max() < 0.2 * report.flow["init_dist"].max()
        distances.append(report.summary["headline"]["last_flow_dist"])
    assert distances[0] / distances[1] == pytest.approx(4, rel=0.25)


def test_dropout_keeps_to_one_draw(tmp_path: Path) -> None:
    run, _, _ = record_odd(tmp_path, 0.5, 10, 0.1)
    reports = [trajcheck.flow(run, f"{tmp_path / 'odd.py'}:dropped", out=tmp_path / name) for name in ("a", "b")]
    pd.testing.assert_frame_equal(reports[0].flow, reports[1].flow)
    assert reports[0].summary["flow"]["random"] is True
    assert any("one draw" in warning for warning in reports[0].summary["warnings"])
    assert reports[0].flow["flow_loss"].is_monotonic_decreasing  # a flow of one function goes down
    # at the start the draw is the recorded one
    assert reports[0].summary["flow"]["recorded_gradient_disagreement"] < 1e-12


def test_buffers_are_those_of_the_start(tmp_path: Path) -> None:
    """A buffer that scales the loss: 1 in the objective's model, 0.5 where the flow starts, 3 later."""
    run, objective, hessian, start = quadratic(tmp_path)
    for step in range(41):
        amend(run, step, {"buffer/scale": np.array(0.5 if step < 3 else 3.0)})
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text()
        + """

def scaled():
    model, inner = objective()
    model.register_buffer("scale", torch.ones((), dtype=torch.float64))
    return model, lambda model, batch: model.scale * inner(model, batch)
"""
    )
    frame = trajcheck.flow(run, f"{path}:scaled", rtol=1e-8, out=tmp_path / "report").flow
    thetas, xs = exact(0.5 * hessian, start, frame["tau"]), descent(hessian, start, 0.1, 40)
    np.testing.assert_allclose(frame["flow_dist"], np.linalg.norm(xs - thetas, axis=1), atol=1e-6)
    np.testing.assert_allclose(frame["loss"], [x @ hessian @ x / 4 for x in xs], rtol=1e-9, atol=1e-12)


def test_the_conditions_of_the_integration_are_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting them costs as much as a small model's gradient; the process's own are as they were afterwards."""
    entered, conditions = [0], Objective._conditions

    def counted(objective: Objective, twice: bool = False) -> AbstractContextManager[None]:
        entered[0] += 1
        return conditions(objective, twice)

    monkeypatch.setattr(Objective, "_conditions", counted)
    run, objective, _, _ = quadratic(tmp_path)
    before = torch.get_default_dtype(), torch.backends.cudnn.deterministic, torch.random.get_rng_state().tolist()
    report = trajcheck.flow(run, objective, rtol=1e-8, out=tmp_path / "report")
    assert report.summary["flow"]["gradient_evaluations"] > 100 and entered[0] < 10
    after = torch.get_default_dtype(), torch.backends.cudnn.deterministic, torch.random.get_rng_state().tolist()
    assert before == after

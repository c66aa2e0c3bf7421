"""An objective whose loss is not the training's: by how much it differs is named, and beyond 10% the exit code is 4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_run_files import Outcome
from torch import nn

import trajcheck

OBJECTIVE = """
from torch import nn

def times(factor):
    return nn.Linear(3, 1), lambda m, z: factor * (m(z[0]) - z[1]).square().mean()

def right():
    return times(1.0)

def twice():
    return times(2.0)

def slightly():
    return times(1.05)

def barely():
    return times(1.0005)
"""
STEPS = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlike")
    (folder / "objective.py").write_text(OBJECTIVE)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with trajcheck.Recorder(folder / "run", model, optimizer, every=1, quiet=True, strict=True) as recorder:
        for _ in range(STEPS):
            z = torch.randn(8, 3), torch.randn(8, 1)
            loss = (model(z[0]) - z[1]).square().mean()
            loss.backward()
            recorder.observe(z, loss)
            optimizer.step()
            optimizer.zero_grad()
    return folder


def test_a_loss_that_is_twice_the_trainings_exits_with_4(
    run: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    outcome = cli("analyze", run / "run", "--objective", f"{run / 'objective.py'}:twice", "--out", tmp_path / "out")
    assert outcome.code == 4
    said = "--objective: replayed gradients differ from the recorded ones by 100% (median of 5 rows), most at step "
    assert said in outcome.err and "(100%): the replay is not the training" in outcome.err


@pytest.mark.parametrize(("name", "apart"), [("slightly", "5.0e-02"), ("barely", None), ("right", None)])
def test_less_is_a_warning_or_nothing(name: str, apart: str | None, run: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(run / "run", objective=f"{run / 'objective.py'}:{name}", out=tmp_path, quiet=True)
    assert not report.incomplete
    said = [line for line in report.summary["warnings"] if "the replay is not the training" in line]
    errors = report.steps.set_index("step")["replay_grad_error"]
    assert errors[: STEPS - 1].to_numpy() == pytest.approx(
        {"slightly": 0.05, "barely": 5e-4, "right": 0}[name], abs=1e-5
    )
    if apart is None:
        assert said == []
        return
    words = f"replayed gradients differ from the recorded ones by {apart} (median of 5 rows, relative), most at step "
    assert said == [said[0]] and said[0].startswith(words)
    assert "Nothing in the run says why: the objective's loss, or what was observed" in said[0]

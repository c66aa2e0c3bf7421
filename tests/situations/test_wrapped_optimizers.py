"""Optimizers that wrap another: the one inside makes the steps and is recorded, the name says what is around it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from loops import read, run_json
from torch import nn

import trajcheck
from trajcheck import Recorder
from trajcheck.errors import RecorderError


class Lookahead(torch.optim.Optimizer):
    """Zhang et al., arXiv 1907.08610: every k steps of the optimizer inside, half-way back to the slow weights."""

    def __init__(self, optimizer: torch.optim.Optimizer, k: int = 3) -> None:
        self.optimizer, self.k, self.count = optimizer, k, 0
        self._optimizer_step_pre_hooks: Any = {}
        self.param_groups = optimizer.param_groups
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def step(self, closure: Any = None) -> Any:
        self.optimizer.step()
        self.count += 1
        if self.count % self.k == 0:
            with torch.no_grad():
                for slow, p in zip(self.slow, (p for g in self.param_groups for p in g["params"]), strict=True):
                    slow.add_(p - slow, alpha=0.5)
                    p.copy_(slow)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


def train(path: Path, model: Any, optimizer: Any, backward: Any = torch.Tensor.backward, steps: int = 7) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(path, model, optimizer, every=1, quiet=True, strict=True) as recorder:
            for step in range(steps):
                x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
                loss = (model(x) - 1).square().mean()
                backward(loss)
                recorder.observe(x, loss)
                optimizer.step()
                optimizer.zero_grad()
    return [str(each.message) for each in caught if issubclass(each.category, RuntimeWarning)]


def test_lookahead(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    said = train(tmp_path / "run", model, Lookahead(torch.optim.SGD(model.parameters(), lr=0.1)), steps=8)
    assert run_json(tmp_path / "run")["optimizer"]["name"] == "Lookahead(SGD)"
    assert ["before 2 of the steps, the first of them step 3" in line for line in said] == [True]
    assert read(tmp_path / "run", 7)[1]["unseen"] == {
        **{"times": 2, "first": 3, "last": 6},
        **{"tensors": ["weight", "bias"], "changed": 2},
    }
    report = trajcheck.analyze(tmp_path / "run", out=tmp_path / "out", quiet=True)
    assert report.summary["run"]["plain_sgd"] is False  # its steps are not SGD's alone
    assert "cos_floor" not in report.references or report.references["cos_floor"].isna().all()


def test_accelerate(tmp_path: Path) -> None:
    accelerate: Any = pytest.importorskip("accelerate")
    for state in (accelerate.state.AcceleratorState, accelerate.state.GradientState):
        state._reset_state()  # of other trainings in this process, which accumulated gradients
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(3, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert train(tmp_path, model, optimizer, accelerator.backward) == []
    assert run_json(tmp_path)["optimizer"]["name"] == "SGD"
    assert [entry["name"] for entry in run_json(tmp_path)["parameters"]] == ["weight", "bias"]
    assert len(list(tmp_path.glob("step-*"))) == 8


def test_fabric(tmp_path: Path) -> None:
    fabric_module: Any = pytest.importorskip("lightning.fabric")
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1)
    model = nn.Linear(3, 1)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert train(tmp_path, model, optimizer, fabric.backward) == []
    assert run_json(tmp_path)["optimizer"]["name"] == "SGD"
    assert [entry["name"] for entry in run_json(tmp_path)["parameters"]] == ["weight", "bias"]
    assert len(list(tmp_path.glob("step-*"))) == 8


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize("fails", ["disk", "hooks"])
def test_a_recorder_that_cannot_be_made_leaves_nothing_behind(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if fails == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10))
    else:
        monkeypatch.setattr(optimizer, "register_step_post_hook", None)
    with pytest.raises(RecorderError if fails == "disk" else TypeError):
        Recorder(tmp_path / "runs" / "one", model, optimizer, every=1, quiet=True)
    assert list(tmp_path.iterdir()) == []
    assert not optimizer._optimizer_step_pre_hooks
    assert not model._forward_pre_hooks
    assert not model._forward_hooks

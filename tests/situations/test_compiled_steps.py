"""torch.compile of the optimizer's step, or of a function around it: recorded, and no hook of ours is traced."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import read, recorded_steps
from torch import Tensor, nn
from torch._dynamo.utils import counters

import trajcheck
from trajcheck.objective.dispatch.draws import DrawsIn
from trajcheck.recording.outside_graphs import seen_whole
from trajcheck.replay.two_precisions.trial import _Operations

STEPS = 4

pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # of the compiler's own


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    seen_whole.clear()


@pytest.mark.parametrize("edited", [True, False])
@pytest.mark.parametrize("what", ["step", "function"])
def test_a_compiled_step_is_recorded_and_no_hook_is_traced(what: str, edited: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    mse = nn.MSELoss()

    def around() -> None:
        optimizer.step()

    step: Any = torch.compile(optimizer.step if what == "step" else around, backend="eager")
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def train(recorder: trajcheck.Recorder | None) -> None:
        for _ in range(STEPS):
            inputs, targets = torch.randn(8, 3), torch.randn(8, 1)
            seen.append((copy.deepcopy(model), inputs, targets))
            loss = mse(model(inputs), targets)
            loss.backward()
            if recorder is not None:
                recorder.observe((inputs, targets), loss)
            step()
            optimizer.zero_grad()

    if edited:
        with trajcheck.Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
            train(recorder)
    else:
        with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
            train(None)
    assert recorded_steps(tmp_path) == list(range(STEPS + 1))
    for t, (before, inputs, targets) in enumerate(seen):
        wide = copy.deepcopy(before).double()
        loss = (wide(inputs.double()) - targets.double()).square().mean()
        gradients = torch.autograd.grad(loss, list(wide.parameters()))
        tensors, metadata = read(tmp_path, t)
        assert metadata["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
        for (name, p), gradient in zip(before.named_parameters(), gradients, strict=True):
            assert torch.equal(tensors[f"param/{name}"], p)
            assert torch.allclose(tensors[f"grad/{name}"].double(), gradient, rtol=1e-5, atol=1e-7)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs <= 2, "the first step makes the momentum, the others use it"
    assert counters["stats"]["calls_captured"] <= 20 * graphs


class Bare(torch.optim.Optimizer):
    """One graph can be made of its step."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p -= 0.1 * p.grad


def test_a_step_that_has_to_be_one_graph_goes_on_unrecorded_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = Bare(model.parameters())
    step = torch.compile(optimizer.step, backend="eager", fullgraph=True)
    before = model.weight.detach().clone()
    with pytest.warns(RuntimeWarning) as caught, trajcheck.Recorder(tmp_path, model, optimizer, every=1) as recorder:
        for _ in range(4):
            inputs = torch.randn(8, 3)
            loss = model(inputs).square().mean()
            loss.backward()
            recorder.observe(inputs, loss)
            step()
            optimizer.zero_grad()
    assert not torch.equal(model.weight, before)
    said = "a step was compiled as one graph, where no hook of the Recorder can run"
    assert any(said in str(warning.message) for warning in caught)


def test_compilers_do_not_see_what_follows_a_replay_s_operations() -> None:
    """A compiled model under it draws and counts what the model itself does, and nothing of ours is compiled."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.3), nn.Linear(6, 2)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    compiled: Any = torch.compile(model, backend="eager")
    found = []
    for each in (model, compiled):
        torch.manual_seed(3)
        with DrawsIn(torch.float32, torch.float64), _Operations() as counted:
            loss = each(x).square().sum()
        found.append((loss.item(), counted.count))
    assert found[0] == found[1] and found[0][1] == 2 * 4 * (5 * 6 + 6 * 2)
    assert not counters["stats"]["unique_graphs"]

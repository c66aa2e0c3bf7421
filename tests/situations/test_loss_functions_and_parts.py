"""Scripts as the official examples are written: F.nll_loss makes the loss, or the loop itself does; and models of which
several optimizers train a part each, together or by turns. Recorded without an edit, and analyzed against float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import read, run_json
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck
from trajcheck.errors import ObjectiveError

OBJECTIVE = """
from torch import nn
from torch.nn import functional as F

def body():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

def classes():
    return body(), lambda model, z: F.nll_loss(model(z[0]).log_softmax(1), z[1])

def weighed():
    def loss(model, z):
        inputs, targets, weights = z
        return F.binary_cross_entropy_with_logits(model(inputs), targets, weight=weights)
    return body(), loss

def squares():
    def loss(model, z):
        inputs, targets = z
        return (model(inputs) - targets).square().mean()
    return body(), loss
"""


def network() -> Any:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def batch(step: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(step)
    return torch.randn(5, 4, generator=stream), torch.randint(3, (5,), generator=stream)


def objective(folder: Path, name: str) -> str:
    (folder / "objective.py").write_text(OBJECTIVE)
    return f"{folder / 'objective.py'}:{name}"


def assert_replayed(run: Path, out: Path, spec: str, models: list[Any], trained: list[str], loss: Any) -> None:
    """Losses and gradients of all steps are the float64 ones of these models in the parameters that are `trained`."""
    report = trajcheck.analyze(run, objective=spec, out=out, quiet=True)
    steps = report.steps.set_index("step")
    for step, model in enumerate(models):
        wide = copy.deepcopy(model).double()
        inputs, targets = batch(step)
        value = loss(wide, inputs.double(), targets)
        gradients = torch.autograd.grad(value, [wide.get_parameter(name) for name in trained])
        assert steps["loss"][step] == pytest.approx(value.item(), rel=1e-6)
        assert steps["grad_norm"][step] == pytest.approx(np.sqrt(sum(float(g.square().sum()) for g in gradients)), 1e-5)
        assert steps["replay_grad_error"][step] < 1e-5


def nll(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(model(inputs).log_softmax(1), targets)


ALL = ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_script_that_calls_nll_loss(tmp_path: Path) -> None:
    models = []
    with trajcheck.record(tmp_path / "run", every=1, strict=True, quiet=True):
        model = network()
        optimizer = torch.optim.Adadelta(model.parameters(), lr=0.5)
        for step in range(3):
            models.append(copy.deepcopy(model))
            optimizer.zero_grad()
            nll(model, *batch(step)).backward()
            optimizer.step()
    assert torch.equal(read(tmp_path / "run", 1)[0]["batch/1"], batch(1)[1])
    assert_replayed(tmp_path / "run", tmp_path / "out", objective(tmp_path, "classes"), models, ALL, nll)


def labels(step: int) -> tuple[Tensor, Tensor]:
    """Targets, and a weight for each example."""
    stream = torch.Generator().manual_seed(50 + step)
    return torch.rand(5, 3, generator=stream).round(), torch.rand(5, 1, generator=stream)


def by_function(output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return F.binary_cross_entropy(output.sigmoid(), targets, weight=weights)


def by_module(output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return nn.BCEWithLogitsLoss(weight=weights)(output, targets)


@pytest.mark.parametrize("criterion", [by_function, by_module])
def test_a_binary_cross_entropy_with_a_weight_for_each_example(criterion: Any, tmp_path: Path) -> None:
    """The weights are part of the sample; losses and gradients are those of float64."""
    models = []
    with trajcheck.record(tmp_path / "run", every=1, strict=True, quiet=True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for step in range(3):
            models.append(copy.deepcopy(model))
            optimizer.zero_grad()
            criterion(model(batch(step)[0]), *labels(step)).backward()
            optimizer.step()

    def loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        [step] = [step for step in range(3) if torch.equal(batch(step)[0].double(), inputs)]
        targets, weights = (each.double() for each in labels(step))
        output = model(inputs)
        terms = targets * output.sigmoid().log() + (1 - targets) * (1 - output.sigmoid()).log()
        return -(weights * terms).mean()

    assert torch.equal(read(tmp_path / "run", 1)[0]["batch/2"].expand(5, 3), labels(1)[1].expand(5, 3))
    assert_replayed(tmp_path / "run", tmp_path / "out", objective(tmp_path, "weighed"), models, ALL, loss)


def test_weights_of_classes_are_no_data_and_several_of_examples_are_said_to_be_missing(tmp_path: Path) -> None:
    found: list[Any] = []
    for number, weights in enumerate([torch.tensor([0.5, 1.0, 2.0]), torch.rand(5, 3)]):
        with trajcheck.record(tmp_path / str(number), every=1, strict=True, quiet=True):
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            output, targets = model(batch(0)[0]), labels(0)[0]
            F.binary_cross_entropy_with_logits(output, targets, weight=weights, pos_weight=weights).backward()
            optimizer.step()
        tensors, metadata = read(tmp_path / str(number), 0)
        found.append((sorted(name for name in tensors if name.startswith("batch")), metadata.get("omitted")))
    assert found[0] == (["batch/0", "batch/1"], None)
    assert found[1][0] == ["batch/0", "batch/1"]
    assert "weighed each example by tensors of its own" in found[1][1]["targets"]


def test_a_loss_that_the_loop_sums_itself(tmp_path: Path) -> None:
    """Its targets cannot be seen: the run says so, and whoever replays it is told."""
    with trajcheck.record(tmp_path / "run", every=1, strict=True, quiet=True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            (model(batch(step)[0]) - torch.randn(5, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    tensors, metadata = read(tmp_path / "run", 1)
    assert torch.equal(tensors["batch"], batch(1)[0])
    assert list(metadata["omitted"]) == ["targets"]
    report = trajcheck.analyze(tmp_path / "run", out=tmp_path / "out", quiet=True)
    [said] = [line for line in report.summary["warnings"] if "targets" in line]
    assert "the targets of 3 steps may not be in the run: the loss was made by Mean, outside of the model" in said
    assert "record by trajcheck.Recorder, whose observe((inputs, targets), loss) is told of all" in said
    with pytest.raises(ObjectiveError, match=r"too many values.*The run says of this batch: the loss was made by Mean"):
        trajcheck.analyze(tmp_path / "run", objective=objective(tmp_path, "squares"), out=tmp_path / "no", quiet=True)


def test_an_output_of_one_number_is_not_taken_for_the_loss(tmp_path: Path) -> None:
    """Of a batch of one example the model's output is a scalar, as losses are."""
    with trajcheck.record(tmp_path / "run", every=1, strict=True, quiet=True):
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = F.mse_loss(model(batch(0)[0][:1]), torch.tensor([[3.0]]))
        loss.backward()
        optimizer.step()
    tensors, metadata = read(tmp_path / "run", 0)
    assert torch.equal(tensors["batch/1"], torch.tensor([[3.0]])) and metadata["loss"] == loss.item()


@pytest.mark.parametrize("by_turns", [True, False])
def test_each_of_two_recorders_has_what_the_other_trains(by_turns: bool, tmp_path: Path) -> None:
    """The other's parameters change, and each record is replayed with those of its step."""
    model = network()
    parts = [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
    optimizers = [torch.optim.SGD([model.get_parameter(n) for n in names], lr=0.3) for names in parts]
    models: list[list[Any]] = [[], []]
    recorders = [
        trajcheck.Recorder(tmp_path / f"run{i}", model, optimizer, every=1, strict=True, quiet=True)
        for i, optimizer in enumerate(optimizers)
    ]
    for step in range(4):
        moving = [step % 2] if by_turns else [0, 1]
        for i in moving:
            models[i].append(copy.deepcopy(model))
        z = batch(len(models[moving[0]]) - 1)
        loss = nll(model, *z)
        loss.backward()
        for i in moving:
            recorders[i].observe(z, loss)
        for i in moving:
            optimizers[i].step()
        model.zero_grad()
    for i, recorder in enumerate(recorders):
        recorder.close()
        assert_replayed(
            tmp_path / f"run{i}", tmp_path / f"out{i}", objective(tmp_path, "classes"), models[i], parts[i], nll
        )


def test_an_optimizer_that_is_made_later_is_a_second_run(tmp_path: Path) -> None:
    """Of the same model: what it trains is stored with the first run's records as well, as it was at each step."""
    models = []
    with trajcheck.record(tmp_path / "run", every=1, strict=True, quiet=True) as recording:
        model = network()
        optimizers: list[torch.optim.Optimizer] = [torch.optim.SGD(model[0].parameters(), lr=0.3)]
        for step in range(4):
            if step == 2:
                optimizers.append(torch.optim.Adam(model[2].parameters(), lr=0.1))
            models.append(copy.deepcopy(model))
            nll(model, *batch(step)).backward()
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad()
    assert recording.runs == [tmp_path / "run", tmp_path / "run" / "optimizer-2"]
    assert run_json(recording.runs[1])["optimizer"]["name"] == "Adam"
    spec = objective(tmp_path, "classes")
    assert_replayed(recording.runs[0], tmp_path / "out", spec, models, ALL[:2], nll)
    (first, _), (tensors, metadata) = (read(recording.runs[1], step) for step in range(2))
    assert torch.equal(tensors["param/2.weight"], models[3].get_parameter("2.weight"))
    # at its first step, when it was seen, the other optimizer had made its own
    assert torch.equal(first["param/0.weight"], models[3].get_parameter("0.weight")) and metadata["frozen_from"] == 0


def test_a_closure_that_makes_no_gradients_is_no_matter_for_several(tmp_path: Path) -> None:
    """As Lightning's manual optimization gives one; one that evaluates the loss again ends the recording."""
    model = network()
    optimizers = [torch.optim.SGD(model[0].parameters(), lr=0.3), torch.optim.SGD(model[2].parameters(), lr=0.1)]

    def again() -> Tensor:
        model.zero_grad()
        loss = nll(model, *batch(0))
        loss.backward()
        return loss

    with trajcheck.Recorder(tmp_path / "run", model, optimizers, every=1, quiet=True) as recorder:
        loss = again()
        recorder.observe(batch(0), loss)
        gradient = model[2].weight.grad.clone()
        for optimizer in optimizers:
            optimizer.step(lambda: None)
        recorder.observe(batch(0), again())
        optimizers[0].step()
        with pytest.warns(RuntimeWarning, match="a closure of one of several optimizers made gradients"):
            optimizers[1].step(again)
    assert torch.equal(read(tmp_path / "run", 0)[0]["grad/2.weight"], gradient)

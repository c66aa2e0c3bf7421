"""trajcheck.recording.model.recorded_model: names, tied, frozen and master parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import assert_holds, batch_of, loss_of, network, read, run_json, sgd, train, weights
from torch import Tensor, nn

from trajcheck.errors import RecorderError
from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.recorder import Recorder
from trajcheck.runs.trajectory import open_trajectory


def param_names(folder: Path, step: int = 0) -> list[str]:
    return sorted(name[6:] for name in read(folder, step)[0] if name.startswith("param/"))


class Wrapper(nn.Module):
    """As DataParallel names things."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def test_wrapped_and_compiled_models_have_the_bare_names(tmp_path: Path) -> None:
    torch.compiler.reset()  # a forward that other tests compiled too often is not compiled again
    plain = network()
    expected = sorted(name for name, _ in plain.named_parameters())

    def partly_compiled() -> Any:
        model = network()
        model[0] = torch.compile(model[0], backend="eager")
        return model

    compiled = torch.compile(network(), backend="eager", fullgraph=True)
    for i, model in enumerate((Wrapper(network()), partly_compiled(), compiled, Wrapper(partly_compiled()))):
        assert isinstance(model, nn.Module)
        folder = tmp_path / str(i)
        with Recorder(folder, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
            train(model, recorder._optimizer, 2, recorder)
        assert param_names(folder) == expected
        assert sorted(p["name"] for p in run_json(folder)["parameters"]) == expected
        tensors, _ = read(folder, 1)
        assert "rng/cpu" in tensors
        assert tensors["buffer/1.num_batches_tracked"] == 1


def test_a_model_that_is_compiled_elsewhere_is_still_compiled_whole(tmp_path: Path) -> None:
    """The hook neither breaks the graph nor sees the forward, and the recorder says so."""
    model = network()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert isinstance(compiled, nn.Module)
    with (
        Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder,
        pytest.warns(RuntimeWarning, match="compiled copy"),
    ):
        train(compiled, recorder._optimizer, 2, recorder)
    assert "grad/0.weight" in read(tmp_path, 1)[0]


def test_two_tensors_of_one_name() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(1))
    model.module = nn.Linear(1, 1)
    with pytest.raises(RecorderError, match="both called 'weight'"):
        RecordedModel(model, sgd(model))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.embedding(x))


def test_tied_parameters_are_stored_once(tmp_path: Path) -> None:
    model = Tied()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        loss = model(torch.arange(5)).square().sum()
        loss.backward()
        recorder.observe(torch.arange(5), loss)
        optimizer.step()
    assert param_names(tmp_path) == ["embedding.weight"]
    assert run_json(tmp_path)["tied"] == {"output.weight": "embedding.weight"}
    assert [p["name"] for p in run_json(tmp_path)["parameters"]] == ["embedding.weight"]


def test_frozen_parameters_are_stored_once(tmp_path: Path) -> None:
    model = network()
    model[4].bias.requires_grad_(False)  # held by the optimizer all the same
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[4].parameters()], lr=0.1)
    before = weights(model)
    with Recorder(tmp_path, model, optimizer, every=2, strict=True, quiet=True) as recorder:
        train(model, optimizer, 3, recorder)
    frozen = ["1.weight", "1.bias", "4.bias"]
    first, metadata = read(tmp_path, 0)
    assert "frozen_from" not in metadata
    assert_holds(first, "param", before)
    for step in (2, 3):
        tensors, metadata = read(tmp_path, step)
        assert metadata["frozen_from"] == 0
        assert not any(f"param/{name}" in tensors for name in frozen)
    entries = {p["name"]: p for p in run_json(tmp_path)["parameters"]}
    assert [name for name in entries if not entries[name]["trainable"]] == frozen
    assert entries["4.bias"]["group"] is None
    assert not any(name.startswith("grad/1") for name in first)


def test_a_frozen_parameter_that_changes_is_stored_again(tmp_path: Path) -> None:
    """However it was written: .data moves no version counter. The others stay where they were."""
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        train(model, optimizer, 2, recorder)
        model[4].weight.data.mul_(0.99)
        changed = weights(model)["4.weight"]
        train(model, optimizer, 2, recorder)
    held = [{n for n in param_names(tmp_path, step) if not n.startswith("0.")} for step in range(5)]
    assert held == [{"1.weight", "1.bias", "4.weight", "4.bias"}, set(), {"4.weight"}, set(), set()]
    assert torch.equal(read(tmp_path, 2)[0]["param/4.weight"], changed)
    said = [read(tmp_path, step)[1].get("frozen_from") for step in range(5)]
    assert said == [None, 0, 0, {"": 0, "4.weight": 2}, {"": 0, "4.weight": 2}]
    frozen = [snapshot.frozen["4.weight"].path[-14:-12] for snapshot in open_trajectory(tmp_path).snapshots]
    assert frozen == ["00", "00", "02", "02", "02"]


def half_precision() -> tuple[nn.Module, list[Tensor]]:
    model = nn.Linear(4, 3).bfloat16()
    return model, [parameter.detach().float() for parameter in model.parameters()]


@pytest.mark.parametrize("named", [True, False])
def test_masters_of_low_precision_weights(named: bool, tmp_path: Path) -> None:
    model, masters = half_precision()
    optimizer = torch.optim.SGD(masters, lr=1e-4)
    names = dict(zip(("weight", "bias"), masters, strict=True)) if named else None
    with Recorder(tmp_path, model, optimizer, every=1, masters=names, strict=True, quiet=True) as recorder:
        for step in range(3):
            before = [master.clone() for master in masters]
            loss = loss_of(model, (batch_of(step)[0].bfloat16(), batch_of(step)[1]))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            for parameter, master in zip(model.parameters(), masters, strict=True):
                assert parameter.grad is not None
                master.grad = parameter.grad.float() / 3
            optimizer.step()
            model.zero_grad()
            gradients = [master.grad for master in masters]
            with torch.no_grad():
                for parameter, master in zip(model.parameters(), masters, strict=True):
                    parameter.copy_(master)
    tensors, metadata = read(tmp_path, 2)
    assert "micro_batches" not in metadata
    assert_holds(tensors, "master", dict(zip(("weight", "bias"), before, strict=True)))
    assert_holds(tensors, "grad", dict(zip(("weight", "bias"), gradients, strict=True)))  # type: ignore[arg-type]
    assert tensors["param/weight"].dtype == torch.bfloat16
    assert {"master/weight", "param/bias"} <= read(tmp_path, 3)[0].keys()
    assert run_json(tmp_path)["parameters"][0]["trainable"] is True
    assert run_json(tmp_path)["parameters"][0]["group"] == 0


def test_masters_that_do_not_match() -> None:
    model, masters = half_precision()
    with pytest.raises(RecorderError, match="masters="):
        RecordedModel(model, torch.optim.SGD(masters[:1], lr=0.1))
    with pytest.raises(RecorderError, match="not parameters of the model"):
        RecordedModel(model, torch.optim.SGD(masters[::-1], lr=0.1))
    swapped = {"weight": masters[0], "bias": torch.zeros(3)}
    with pytest.raises(RecorderError, match="'bias'"):
        RecordedModel(model, torch.optim.SGD(masters, lr=0.1), masters=swapped)
    reordered = RecordedModel(
        model, torch.optim.SGD(masters[::-1], lr=0.1), masters={"weight": masters[0], "bias": masters[1]}
    )
    assert [p.has_master for p in reordered.parameters] == [True, True]


def test_parameters_without_values_or_of_odd_types() -> None:
    with pytest.raises(RecorderError, match="no values yet"):
        lazy = nn.LazyLinear(3)
        RecordedModel(lazy, sgd(lazy))
    with torch.device("meta"):
        meta = nn.Linear(2, 2)
    with pytest.raises(RecorderError, match="no values yet"):
        RecordedModel(meta, sgd(meta))
    odd = nn.Module()
    odd.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    odd.count = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    with pytest.raises(RecorderError, match="complex64"):
        RecordedModel(odd, sgd(odd))
    odd.phase = nn.Parameter(torch.zeros(2))
    assert [p.recorded for p in RecordedModel(odd, sgd(odd)).parameters] == [True, True]


def test_buffers_that_no_file_can_hold_are_left_out_and_named() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.ones(2, dtype=torch.bool))
    model.register_buffer("rotation", torch.ones(2, dtype=torch.complex64), persistent=False)
    model.register_buffer("links", torch.eye(2).to_sparse())
    recorded = RecordedModel(model, sgd(model))
    assert list(recorded.buffers) == ["mask", "rotation"]
    assert recorded.lost() == (
        "a step file cannot hold buffer links (Tensor, float32, torch.sparse_coo): a replay takes the objective's own "
        "in its place"
    )


def test_copies_are_contiguous_and_not_views(tmp_path: Path) -> None:
    model = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recorded = RecordedModel(model, sgd(model))
    copy = recorded.iterate()["param/weight"]
    assert copy.is_contiguous()
    before = copy.clone()
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(copy, before)

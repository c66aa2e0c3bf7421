"""trajcheck.recording.recorder: x_t, g_t, rates and sums of a loop, and that the loop does not notice."""

from __future__ import annotations

import copy
import io
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import (
    assert_holds,
    batch_of,
    loss_of,
    network,
    read,
    recorded_steps,
    run_json,
    sgd,
    train,
    trajectory,
    weights,
)
from places import HELPERS
from torch import Tensor, nn

from trajcheck.errors import RecorderError
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Listed, Pairs


@pytest.mark.parametrize(
    "make",
    [
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True),
        lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
    ],
)
@pytest.mark.parametrize("options", [{}, {"every": 3}, {"total_steps": 12}])
def test_training_is_bit_identical_with_and_without_it(make: Any, options: Any, tmp_path: Path) -> None:
    plain, plain_states = trajectory(make, None)
    recorded, recorded_states = trajectory(make, tmp_path, **options)
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain_states, recorded_states, strict=True))


def test_gradients_after_the_step_are_bit_identical(tmp_path: Path) -> None:
    results = []
    for recorded in (False, True):
        model = network()
        optimizer = sgd(model, momentum=0.9, nesterov=True, foreach=True)
        recorder = Recorder(tmp_path, model, optimizer, every=1, quiet=True) if recorded else None
        loss = loss_of(model, batch_of(0))
        loss.backward()
        if recorder:
            recorder.observe(batch_of(0), loss)
        optimizer.step()
        results.append([parameter.grad for parameter in model.parameters()])
        if recorder:
            recorder.close()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_holds_iterate_gradient_batch_loss_rates_and_sums(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 0.02}], lr=0.3
    )
    optimizer.add_param_group({"params": model[1].parameters(), "lr": 0.5})
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    rates, iterates, gradients, losses = [], [], [], []
    with Recorder(tmp_path, model, optimizer, every=2, strict=True, quiet=True) as recorder:
        for step in range(5):
            batch = batch_of(step)
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            rates.append([group["lr"] for group in optimizer.param_groups])
            iterates.append(weights(model))
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    assert recorded_steps(tmp_path) == [0, 2, 4, 5]
    for step in (0, 2, 4):
        tensors, metadata = read(tmp_path, step)
        assert_holds(tensors, "param", iterates[step])
        assert_holds(tensors, "grad", gradients[step])
        assert_holds(tensors, "batch", dict(zip("01", batch_of(step), strict=True)))
        assert metadata["format"] == 1
        assert metadata["step"] == step
        assert metadata["loss"] == losses[step]
        assert metadata["lr"] == rates[step]
        past = np.array(rates[:step]).reshape(step, 3)
        np.testing.assert_allclose(metadata["tau"], past.sum(0), rtol=1e-14)
        np.testing.assert_allclose(metadata["tau_squares"], (past**2).sum(0), rtol=1e-14)
        assert not {"clip", "micro_batches", "micro_weights", "skipped", "batch_tree"} & metadata.keys()
    tensors, metadata = read(tmp_path, 5)
    assert_holds(tensors, "param", weights(model))
    assert not any(name.startswith(("grad", "batch", "rng")) for name in tensors)
    np.testing.assert_allclose(metadata["tau"], np.sum(rates, 0), rtol=1e-14)
    assert "lr" not in metadata


def test_checksums_are_those_of_the_bytes(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, quiet=True) as recorder:
        train(model, recorder._optimizer, 1, recorder)
    tensors, metadata = read(tmp_path, 0)
    checksums = metadata.pop("checksum")
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    assert checksums.pop("metadata") == zlib.crc32(text.encode())
    assert checksums == {name: zlib.crc32(t.numpy().tobytes()) for name, t in tensors.items()}


def test_run_json(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.25), betas=(0.5, 0.75))
    Recorder(tmp_path, model, optimizer, every=7, user={"note": [1, None]}, quiet=True).close()
    text = run_json(tmp_path)
    assert text["format"] == 1
    assert len(text["id"]) == 36
    assert text["parameters"][0] == {"name": "0.weight", "shape": [8, 4], "dtype": "F32", "group": 0, "trainable": True}
    assert text["tied"] == {}
    assert text["optimizer"]["name"] == "AdamW"
    group = text["optimizer"]["groups"][0]
    assert (group["lr"], group["betas"], group["weight_decay"], group["decoupled"]) == (0.25, [0.5, 0.75], 0.01, True)
    assert text["versions"]["torch"] == torch.__version__
    assert text["versions"]["device"] == "cpu"
    assert text["schedule"] == "Every(k=7)"
    assert text["user"] == {"note": [1, None]}
    assert recorded_steps(tmp_path) == [0]  # nothing was trained: the initial iterate alone


def test_momentum_that_is_added_to_the_gradient_in_place_is_not_recorded(tmp_path: Path) -> None:
    """torch.optim.SGD(nesterov=True, foreach=True) changes .grad during the step."""
    model = network()
    seen = []
    optimizer = sgd(model, momentum=0.9, nesterov=True, foreach=True)
    optimizer.register_step_pre_hook(lambda *_: seen.append(model[0].weight.grad.clone()))
    with Recorder(tmp_path, model, optimizer, every=1, quiet=True) as recorder:
        train(model, optimizer, 3, recorder)
    for step in range(3):
        assert torch.equal(read(tmp_path, step)[0]["grad/0.weight"], seen[step])


@pytest.mark.parametrize("positional", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_a_closure_that_is_evaluated_once(positional: bool, inside: bool, tmp_path: Path) -> None:
    """The gradient before the step is stale or missing, as under Lightning's automatic optimisation."""
    model = network()
    optimizer = sgd(model, momentum=0.9)
    iterates, gradients = [], []
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for step in range(4):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, batch_of(step))
                loss.backward()
                recorder.observe(batch_of(step), loss)
                gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
                return loss

            iterates.append(weights(model))
            result = optimizer.step(closure) if positional else optimizer.step(closure=closure)
            assert result is not None
            if inside:
                optimizer.zero_grad()
    for step in range(4):
        tensors, metadata = read(tmp_path, step)
        assert_holds(tensors, "param", iterates[step])
        assert_holds(tensors, "grad", gradients[step])
        assert torch.equal(tensors["batch/0"], batch_of(step)[0])
        assert "loss" in metadata


class Twice(torch.optim.SGD):
    """Evaluates its closure twice, like a line search."""

    def step(self, closure: Any = None) -> Any:
        closure()
        return super().step(closure)


def test_a_closure_that_is_evaluated_twice_counts_once(tmp_path: Path) -> None:
    model = network()
    optimizer = Twice(model.parameters(), lr=0.1)
    losses, iterates = [], []
    with Recorder(tmp_path, model, optimizer, every=1, quiet=True, strict=True) as recorder:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch_of(0))
            loss.backward()
            recorder.observe(batch_of(0), loss)
            losses.append(loss.item())
            return loss

        for _ in range(2):
            iterates.append(weights(model))
            optimizer.step(closure)
    assert len(losses) == 4 and recorded_steps(tmp_path) == [0, 1, 2]
    for step in range(2):
        tensors, metadata = read(tmp_path, step)
        assert_holds(tensors, "param", iterates[step])
        assert metadata["loss"] in losses[2 * step : 2 * step + 2] and "micro_batches" not in metadata


def test_a_step_that_calls_its_parents_step_counts_once(tmp_path: Path) -> None:
    class Decayed(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)  # from now on its step() calls hooks itself
    model = network()
    optimizer = Decayed(model.parameters(), lr=0.25)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        train(model, optimizer, 3, recorder)
    assert recorded_steps(tmp_path) == [0, 1, 2, 3]
    assert read(tmp_path, 3)[1]["tau"] == [0.75]


def test_clipping_notes_its_factor(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    norms = []
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for step in range(5):
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            if step == 0:
                norms.append(recorder.clip_grad_norm_(1e-2))
            if step == 1:
                norms.append(recorder.clip_grad_norm_(1e6))
            if step == 2:
                recorder.clipped(0.5)
            if step == 3:
                recorder.clipped(None)
            optimizer.step()
            optimizer.zero_grad()
    clips = [read(tmp_path, step)[1].get("clip", "absent") for step in range(5)]
    assert clips == [pytest.approx(1e-2 / (float(norms[0]) + 1e-6), rel=1e-12), 1.0, 0.5, None, "absent"]
    gradients = [t for name, t in read(tmp_path, 0)[0].items() if name.startswith("grad/")]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert float(norm) == pytest.approx(1e-2, rel=1e-3)


def test_clipping_does_what_torch_does_also_when_nothing_is_recorded(tmp_path: Path) -> None:
    results = []
    for recorded in (True, False):
        model = network()
        optimizer = sgd(model)
        recorder = Recorder(tmp_path, model, optimizer, schedule=Listed([5]), quiet=True)
        loss_of(model, batch_of(0)).backward()
        if recorded:
            norm = recorder.clip_grad_norm_(0.1)
            recorder.close()
            assert recorder.clip_grad_norm_(0.1) == pytest.approx(0.1, rel=1e-4)
        else:
            recorder.close()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        results.append([norm, *(p.grad for p in model.parameters())])
        for path in tmp_path.iterdir():
            path.unlink()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradients_of_another_dtype_and_missing_ones(tmp_path: Path) -> None:
    model = network()
    unused = nn.Parameter(torch.ones(2))
    model.register_parameter("unused", unused)
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, grad_dtype=torch.bfloat16, quiet=True) as recorder:
        train(model, optimizer, 1, recorder)
    tensors, _ = read(tmp_path, 0)
    assert tensors["grad/0.weight"].dtype == torch.bfloat16
    assert torch.equal(tensors["grad/unused"], torch.zeros(2, dtype=torch.bfloat16))


def test_sparse_gradients_are_stored_dense(tmp_path: Path) -> None:
    model = nn.Embedding(5, 2, sparse=True)
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for _ in range(2):
            loss = model(torch.tensor([1, 3])).sum()
            loss.backward()
            recorder.observe(torch.tensor([1, 3]), loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    assert torch.equal(read(tmp_path, 1)[0]["grad/weight"][:, 0], torch.tensor([0.0, 1, 0, 1, 0]))


def test_a_loss_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for loss_value in (float("inf"), float("nan"), 1.0):
            loss = loss_of(model, batch_of(0))
            loss.backward()
            recorder.observe(batch_of(0), loss_value)
            optimizer.step()
            optimizer.zero_grad()
    assert [read(tmp_path, step)[1].get("loss") for step in range(3)] == [None, None, 1.0]


def test_epoch_and_filter(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, parameters=r"^4\.", quiet=True) as recorder:
        recorder.epoch = 3
        train(model, optimizer, 1, recorder)
    tensors, metadata = read(tmp_path, 0)
    assert {name for name in tensors if name.startswith(("param", "grad"))} == {
        "param/4.weight", "param/4.bias", "grad/4.weight", "grad/4.bias",
    }  # fmt: skip
    assert metadata["epoch"] == 3
    left_out = [p["name"] for p in run_json(tmp_path)["parameters"] if p.get("recorded") is False]
    assert left_out == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_the_final_iterate_is_recorded_when_the_loop_fails(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path, model, optimizer, every=4, quiet=True) as recorder:
        train(model, optimizer, 3, recorder)
        raise ZeroDivisionError
    assert recorded_steps(tmp_path) == [0, 3]
    assert_holds(read(tmp_path, 3)[0], "param", weights(model))


def test_a_step_that_fails_half_way_leaves_the_iterate_before_it(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)

    def closure() -> Tensor:
        with torch.no_grad():
            model[0].weight.add_(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Recorder(tmp_path, model, optimizer, every=1, quiet=True) as recorder:
        train(model, optimizer, 2, recorder)
        before = weights(model)
        optimizer.step(closure)
    assert recorded_steps(tmp_path) == [0, 1, 2]
    tensors, metadata = read(tmp_path, 2)
    assert_holds(tensors, "param", before)
    assert metadata.keys() == {"format", "step", "tau", "tau_squares", "modes", "checksum"}


def test_an_interrupt_while_recording_does_not_shift_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    optimizer = sgd(model)
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path, model, optimizer, every=1, quiet=True) as recorder:
        train(model, optimizer, 2, recorder)

        def interrupt() -> Any:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(recorder._observations, "take", interrupt)
        train(model, optimizer, 1, recorder)
    assert recorded_steps(tmp_path) == [0, 1, 3]
    assert_holds(read(tmp_path, 3)[0], "param", weights(model))


def test_close_is_idempotent_and_lets_go(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    recorder = Recorder(tmp_path, model, optimizer, every=1, quiet=True)
    train(model, optimizer, 2, recorder)
    recorder.close()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    recorder.close()
    train(model, optimizer, 2, recorder)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_copies_of_the_model_are_not_recorded(tmp_path: Path) -> None:
    """A deep copy is made as a pickle is, through ForwardHook.__reduce__; saving the whole model works as before."""
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        average = copy.deepcopy(model)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        train(model, optimizer, 1, recorder)
        average(batch_of(0)[0])
        assert recorder._observations.latest_forward is None
        model(batch_of(0)[0])
        assert recorder._observations.latest_forward is not None


def test_the_plan_and_its_bytes_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    with Recorder(tmp_path / "a", model, sgd(model), total_steps=3) as recorder:
        train(model, recorder._optimizer, 3, recorder)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "every step" in line
    assert "kB in all" in line
    assert "budget" in line
    with Recorder(tmp_path / "b", model, sgd(model), schedule=Pairs(5), total_steps=20) as recorder:
        train(model, recorder._optimizer, 3, recorder)
    line = capsys.readouterr().err
    assert "Pairs(k=5)" in line
    assert "kB in all" in line
    with Recorder(tmp_path / "c", model, sgd(model), quiet=True) as recorder:
        train(model, recorder._optimizer, 3, recorder)
    assert capsys.readouterr().err == ""


def test_refusals(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)

    def refused(match: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(RecorderError, match=match):
            Recorder(tmp_path / "run", *(arguments or (model, optimizer)), **options)
        assert not (tmp_path / "run").exists()
        assert not model._forward_pre_hooks

    refused("not parameters of the model", model, sgd(network(1)))
    refused("expected a torch.nn.Module", model.parameters(), optimizer)
    refused("wrapper.optimizer", model, object())
    refused("give one of them", every=3, schedule=Pairs(3))
    refused("every=10", schedule=10)
    refused("positive integer", every=0)
    refused("leaves none", parameters="nothing")
    refused("regular expression", parameters="(")
    refused("numbers of updates", start_step=-1)
    refused("float16", grad_dtype=torch.float16)
    refused("as JSON", user={"x": math.nan})


def test_unclosed_recorders_are_closed_at_exit(tmp_path: Path) -> None:
    import subprocess

    script = f"""
import sys; sys.path.insert(0, {str(HELPERS)!r})
from loops import *
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
recorder = Recorder({str(tmp_path)!r}, model, optimizer, every=2)
train(model, optimizer, 3, recorder)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert recorded_steps(tmp_path) == [0, 2, 3]

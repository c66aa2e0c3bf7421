"""trajcheck.recording.step.window_sums: the sums of a record are those of a loop that keeps every x_t and g_t."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import batch_of, loss_of, network, read, recorded_steps, sgd, train, trajectory, weights
from plain_run_files import write_plain_step
from torch import Tensor, nn
from window_reference import Dense, double_batch, of_kind

from trajcheck.errors import RecorderError, StepFileError
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Budget, Every, Listed, Pairs
from trajcheck.recording.step import window_sums
from trajcheck.runs.divergence import cut_at_divergence, find_bad_steps
from trajcheck.runs.trajectory import open_trajectory


def windowed(folder: Path, model: nn.Module, optimizer: Any, **options: Any) -> Recorder:
    options = {
        "strict": True,
        "quiet": True,
        "windows": True,
        **({} if "schedule" in options else {"every": 4}),
        **options,
    }
    return Recorder(folder, model, optimizer, **options)


OPTIMIZERS = [
    lambda ps: torch.optim.SGD(ps, lr=0.1),
    lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    lambda ps: torch.optim.AdamW(ps, lr=0.01),
    lambda ps: torch.optim.AdamW(ps, lr=0.01, fused=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "nesterov", "AdamW", "fused"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["double", "single"])
@pytest.mark.parametrize("schedule", [Every(4), Every(1), Pairs(5), Listed([2, 9])], ids=repr)
@pytest.mark.parametrize("chunk", [1 << 18, 7], ids=["whole", "cut"])
def test_sums_over_every_step(
    make: Any, dtype: torch.dtype, rtol: float, schedule: Any, chunk: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(window_sums, "CHUNK_CPU", chunk)
    model = network().to(dtype)
    optimizer = make(model.parameters())
    dense = Dense()
    with windowed(tmp_path, model, optimizer, schedule=schedule) as recorder:
        for step in range(13):
            batch = double_batch(step)
            loss = loss_of(model, (batch[0].to(dtype), batch[1]))
            loss.backward()
            recorder.observe(batch, loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert "window" not in read(tmp_path, recorded_steps(tmp_path)[0])[1]
    dense.check(tmp_path, rtol)


@pytest.mark.parametrize("make", OPTIMIZERS[1:3])
@pytest.mark.parametrize("every", [1, 5])
def test_training_is_bit_identical_with_and_without_windows(make: Any, every: int, tmp_path: Path) -> None:
    def of_model(model: nn.Module) -> Any:
        return make(model.parameters())

    plain, plain_states = trajectory(of_model, None)
    recorded, recorded_states = trajectory(of_model, tmp_path, every=every, windows=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain_states, recorded_states, strict=True))


def test_gradients_are_left_as_they_are(tmp_path: Path) -> None:
    results = []
    for recorded in (False, True):
        model = network()
        optimizer = sgd(model)
        recorder = windowed(tmp_path, model, optimizer) if recorded else None
        loss_of(model, batch_of(0)).backward()
        if recorder:
            recorder.clipped(0.5)
        optimizer.step()
        results.append([p.grad for p in model.parameters()])
        if recorder:
            recorder.close()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_rest_of_a_record_does_not_depend_on_windows(tmp_path: Path) -> None:
    for windows in (False, True):
        model = network()
        with Recorder(tmp_path / str(windows), model, sgd(model), every=3, quiet=True, windows=windows) as recorder:
            train(model, recorder._optimizer, 8, recorder)
    for step in (0, 3, 6, 8):
        tensors, metadata = read(tmp_path / "True", step)
        tensors = {name: t for name, t in tensors.items() if not name.startswith("window/")}
        metadata.pop("window", None)
        metadata["checksum"] = {name: crc for name, crc in metadata["checksum"].items() if name in tensors}
        expected, expected_metadata = read(tmp_path / "False", step)
        del expected_metadata["checksum"]["metadata"]
        assert metadata == expected_metadata
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)


def test_large_float32_tensors_are_summed_to_seven_digits(tmp_path: Path) -> None:
    """Several hundred thousand elements, a hundred steps, float32 throughout."""
    torch.manual_seed(0)
    model = nn.Linear(700, 600)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=100) as recorder:
        for _ in range(100):
            loss = model(torch.randn(4, 700)).square().mean()
            loss.backward()
            recorder.observe(torch.zeros(1), loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-7)


# What a step may look like


@pytest.mark.parametrize("early", [True, False], ids=["observed before backward", "after"])
def test_gradient_accumulation(early: bool, tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(7):
            total = 0.0
            for i in range(4):
                batch = double_batch(4 * step + i)
                loss = loss_of(model, batch)
                total += loss.item() / 4
                if early:
                    recorder.observe(batch, loss, weight=0.25)
                (loss / 4).backward()
                if not early:
                    recorder.observe(batch, loss, weight=0.25)
            dense.note(model, total)
            optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-12)


@pytest.mark.parametrize("to_none", [True, False], ids=["to none", "in place"])
@pytest.mark.parametrize("late", [True, False], ids=["cleared before backward", "cleared at once"])
@pytest.mark.parametrize("clips", ["no clipping", "clipped, then observed", "observed, then clipped"])
@pytest.mark.parametrize("called", ["itself", "in parts"])
@pytest.mark.filterwarnings("ignore:the model that the Recorder")
def test_abandoned_passes_are_left_out_or_unknown(
    to_none: bool, late: bool, clips: str, called: str, tmp_path: Path
) -> None:
    model = network().double()
    forward = model if called == "itself" else nn.Sequential(*model)
    optimizer = sgd(model)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, schedule=Listed([0])) as recorder:
        for i in range(12):
            loss = loss_of(forward, double_batch(i))
            if late:
                optimizer.zero_grad(set_to_none=to_none)
            loss.backward()
            if clips == "observed, then clipped":
                recorder.observe(double_batch(i), loss)
            factor = 1.0 if clips == "no clipping" else 0.5 + i / 100
            if factor != 1.0:
                for p in model.parameters():
                    assert p.grad is not None
                    p.grad.mul_(factor)
                recorder.clipped(factor)
            if clips != "observed, then clipped":
                recorder.observe(double_batch(i), loss)
            if i % 3 == 2:  # the others are abandoned
                dense.note(model, loss.item(), factor)
                optimizer.step()
            if not late:
                optimizer.zero_grad(set_to_none=to_none)
    known = called == "itself" and (to_none or not late)
    assert known <= ("window" in read(tmp_path, 4)[1])
    dense.check(tmp_path, 1e-12, complete=known)


def test_clipping_between_two_backward_passes_is_no_one_factor(tmp_path: Path) -> None:
    """c (c g_1 + g_2) is no multiple of g_1 + g_2: there is no window until the next record, and no factor."""
    model = network()
    optimizer = sgd(model)
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for _ in range(2):
            loss = loss_of(model, batch_of(0))
            loss.backward()
            recorder.clip_grad_norm_(0.1)
            recorder.observe(batch_of(0), loss)
        optimizer.step()
        optimizer.zero_grad()
        train(model, optimizer, 4, recorder)
    assert ["window" in read(tmp_path, step)[1] for step in recorded_steps(tmp_path)] == [False, False, True, True]
    assert read(tmp_path, 0)[1]["clip"] is None


def test_clipping_is_divided_out(tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(8):
            loss = loss_of(model, double_batch(step))
            loss.backward()
            recorder.observe(double_batch(step), loss)
            dense.note(model, loss.item())
            if step % 2:
                recorder.clip_grad_norm_(0.05 if step < 6 else 1e6)
            if step % 4 == 1:
                for p in model.parameters():
                    if p.grad is not None:
                        p.grad *= 0.25
                recorder.clipped(0.25)
            optimizer.step()
            optimizer.zero_grad()
    assert read(tmp_path, 3)[1]["clip"] < 1
    dense.check(tmp_path, 1e-12)


@pytest.mark.parametrize("factor", [None, 0.0, float("nan"), float("inf")])
def test_a_factor_that_is_not_known_voids_the_window(factor: float | None, tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        train(model, optimizer, 4, recorder)
        loss = loss_of(model, batch_of(0))
        loss.backward()
        recorder.observe(batch_of(0), loss)
        if factor == 0.0:
            optimizer.zero_grad(set_to_none=False)
        recorder.clipped(factor)
        optimizer.step()
        optimizer.zero_grad()
        train(model, optimizer, 3, recorder)
    there = ["window" in read(tmp_path, step)[1] for step in (0, 3, 6, 8)]
    assert there == [False, True, False, True]


@pytest.mark.parametrize("positional", [True, False])
def test_closures(positional: bool, tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model, momentum=0.9, nesterov=True, foreach=True)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(8):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, double_batch(step))
                loss.backward()
                recorder.observe(double_batch(step), loss)
                dense.note(model, loss.item())
                return loss

            optimizer.step(closure) if positional else optimizer.step(closure=closure)
    dense.check(tmp_path, 1e-12)


class Nested(torch.optim.SGD):
    """Its step() calls its parent's, so that the hooks run twice; it may move, or evaluate its closure, before that."""

    moves = 0.0

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            if self.moves:
                self.param_groups[0]["params"][0].add_(self.moves)
        if closure is not None:
            with torch.enable_grad():
                closure()
        return super().step()


@pytest.mark.parametrize("closures", [True, False])
@pytest.mark.parametrize("every", [1, 3])
def test_a_step_that_calls_its_parents_step_is_summed_once(closures: bool, every: int, tmp_path: Path) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)  # from now on its step() calls hooks itself
    model = network().double()
    optimizer = Nested(model.parameters(), lr=0.1)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=every) as recorder:
        for step in range(8):

            def closure(step: int = step) -> None:
                loss = loss_of(model, double_batch(step))
                loss.backward()
                recorder.observe(double_batch(step), loss)
                dense.note(model, loss.item())

            if closures:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-12)


@pytest.mark.parametrize("closures", [True, False])
def test_parameters_that_move_within_a_step_void_the_window(closures: bool, tmp_path: Path) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    model = network()
    optimizer = Nested(model.parameters(), lr=0.1)
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(6):
            optimizer.moves = float(step == 3)
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            optimizer.step(lambda: None) if closures else optimizer.step()
            optimizer.zero_grad()
    assert ["window" in read(tmp_path, step)[1] for step in (0, 2, 4, 6)] == [False, True, False, True]


def test_a_closure_that_is_not_evaluated_voids_the_window(tmp_path: Path) -> None:
    class Ignoring(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> Any: ...

    model = network()
    optimizer = Ignoring(model.parameters(), {})
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(4):
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            optimizer.step(lambda: None) if step == 1 else optimizer.step()
    assert ["window" in read(tmp_path, step)[1] for step in (0, 2, 4)] == [False, False, True]


def test_a_step_without_a_loss(tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model)
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(6):
            loss = loss_of(model, double_batch(step))
            loss.backward()
            if step != 3:
                recorder.observe(double_batch(step), loss if step != 4 else float("inf"))
            optimizer.step()
            optimizer.zero_grad()
    losses = [read(tmp_path, step)[1]["window"]["loss_sum"] for step in (2, 4, 6)]
    assert isinstance(losses[0], float)
    assert losses[1:] == [None, None]


def test_missing_and_sparse_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_sums, "CHUNK_CPU", 6)
    model = nn.Embedding(5, 2, sparse=True, dtype=torch.float64)
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    model.register_parameter("scalar", nn.Parameter(torch.ones(())))
    model.register_parameter("empty", nn.Parameter(torch.ones(0, 2)))
    optimizer = sgd(model)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(7):
            indices = torch.tensor([step % 5, 3])
            loss = model(indices).square().sum()
            loss.backward()
            recorder.observe(indices, loss)
            assert model.weight.grad is not None
            was, model.weight.grad = model.weight.grad, model.weight.grad.to_dense()
            dense.note(model, loss.item())
            model.weight.grad = was
            optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-12)
    assert read(tmp_path, 3)[0]["window/empty"].shape == (0, 2)


class Tied(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.again = inner, inner[4]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_only_what_is_trained_and_recorded_is_summed(tmp_path: Path) -> None:
    model = network().double()
    model[1].bias.requires_grad_(False)
    tied = Tied(model)
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[4].parameters()], lr=0.1)
    dense = Dense()
    with windowed(tmp_path, tied, optimizer, every=3, parameters="weight") as recorder:
        for step in range(7):
            loss = loss_of(tied, double_batch(step))
            loss.backward()
            recorder.observe(double_batch(step), loss)
            dense.note(tied, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert of_kind(read(tmp_path, 3)[0], "window").keys() == {"inner.0.weight", "inner.4.weight"}
    dense.check(tmp_path, 1e-12)


def test_other_memory_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum is stored in the order of the parameter's indices, whatever that of its memory."""
    monkeypatch.setattr(window_sums, "CHUNK_CPU", 20)
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = sgd(model, momentum=0.9)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for _ in range(7):
            images = torch.randn(2, 2, 4, 4, dtype=torch.float64)
            loss = model(images).square().mean()
            loss.backward()
            recorder.observe(images, loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert not model.weight.is_contiguous()
    dense.check(tmp_path, 1e-12)


@pytest.mark.parametrize("masters", [True, False])
def test_low_precision_weights(masters: bool, tmp_path: Path) -> None:
    """The master is x; without one the sums are float32 ones of the weights as they are."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).bfloat16()
    held = [p.detach().float() for p in model.parameters()] if masters else list(model.parameters())
    shadow = nn.Linear(4, 3) if masters else model  # holds what the optimizer updates, for the reference
    optimizer = torch.optim.SGD(held, lr=0.05)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(7):
            loss = loss_of(model, (batch_of(step)[0].bfloat16(), batch_of(step)[1]))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            if masters:
                for p, master, copied in zip(model.parameters(), held, shadow.parameters(), strict=True):
                    assert p.grad is not None
                    master.grad = p.grad.float() / 3
                    copied.data, copied.grad = master.clone(), master.grad.clone()
            dense.note(shadow, loss.item())
            optimizer.step()
            model.zero_grad()
            if masters:
                with torch.no_grad():
                    for p, master in zip(model.parameters(), held, strict=True):
                        p.copy_(master)
    dense.check(tmp_path, 1e-6)


# Skipped steps


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("known", [True, False], ids=["scaler known", "unknown"])
@pytest.mark.parametrize("unscaled", [True, False])
@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_steps_that_the_loss_scaler_skips(fused: bool, known: bool, unscaled: bool, every: int, tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    nn.init.constant_(model.weight, 0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.125, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    dense = Dense()
    skipped = []
    with windowed(tmp_path, model, optimizer, every=every, scaler=scaler if known else None) as recorder:
        for i in range(7):
            batch = batch_of(i)[0] * (1e38 if i in (2, 5) else 1)
            loss = model(batch).sum()
            scaler.scale(loss).backward()
            recorder.observe(batch, loss)
            scale = scaler.get_scale()
            if unscaled:
                scaler.unscale_(optimizer)
                recorder.clip_grad_norm_(0.1)
            if i not in (2, 5) or fused or known:  # else nothing tells of the step, and no number is used
                skipped += [len(dense.x)] if i in (2, 5) else []
                clip = recorder._observations.factors() if unscaled else [scale]
                assert clip is not None
                dense.note(model, loss.item(), float(clip[0]))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert len(skipped) == (2 if fused or known else 0)
    assert recorded_steps(tmp_path)[-1] == len(dense.x)
    dense.check(tmp_path, 1e-6, tuple(skipped))


def test_a_run_that_diverges_has_no_window(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with windowed(tmp_path, model, optimizer, every=2) as recorder:
        train(model, optimizer, 3, recorder)
        loss = loss_of(model, batch_of(0)) * float("nan")
        loss.backward()
        recorder.observe(batch_of(0), loss)
        optimizer.step()
        train(model, optimizer, 2, recorder)
    assert ["window" in read(tmp_path, step)[1] for step in (0, 2, 4, 6)] == [False, True, False, False]


# Interrupted steps and resumed jobs


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise ZeroDivisionError
        return super().step(closure)


@pytest.mark.parametrize("then", ["ends", "tries again", "with another gradient", "with more"])
def test_a_step_that_fails_half_way_is_not_summed_twice(then: str, tmp_path: Path) -> None:
    model = network().double()
    optimizer = Failing(model.parameters(), lr=0.1)
    dense = Dense()

    def one(step: int, fails: bool) -> None:
        loss = loss_of(model, double_batch(step))
        loss.backward()
        recorder.observe(double_batch(step), loss)
        optimizer.fails = fails
        if fails:
            with pytest.raises(ZeroDivisionError):
                optimizer.step()
        else:
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()

    with windowed(tmp_path, model, optimizer, every=4) as recorder:
        for step in range(6):
            one(step, False)
        one(6, True)
        if then == "tries again":
            optimizer.fails = False
            dense.note(model, 0.0)
            optimizer.step()
        elif then != "ends":
            if then == "with another gradient":
                optimizer.zero_grad()
            one(7, False)
    last = recorded_steps(tmp_path)[-1]
    assert last == 6 + (then != "ends")
    window = read(tmp_path, last)[1].get("window")
    assert (window is not None) == (then == "tries again")
    if window is not None:
        dense.f[-1] = window["loss_sum"] - sum(dense.f[4:6])
        dense.check(tmp_path, 1e-12)


def test_a_scheduled_step_that_fails_half_way_leaves_the_window_before_it(tmp_path: Path) -> None:
    model = network().double()
    optimizer = sgd(model)
    dense = Dense()

    def closure() -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), windowed(tmp_path, model, optimizer, every=2) as recorder:
        for step in range(4):
            loss = loss_of(model, double_batch(step))
            loss.backward()
            recorder.observe(double_batch(step), loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
        optimizer.step(closure)
    assert recorded_steps(tmp_path) == [0, 2, 4]
    dense.check(tmp_path, 1e-12)


def test_an_interrupt_does_not_leave_a_wrong_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between counting the step and counting it into the window."""
    model = network()
    optimizer = sgd(model)
    with windowed(tmp_path, model, optimizer, every=4) as recorder:
        train(model, optimizer, 5, recorder)

        def interrupt(*_: Any) -> Any:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(recorder._observations, "drop_if_cleared", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(model, optimizer, 1, recorder)
        recorder._observations.reset()
        train(model, optimizer, 3, recorder)
    assert ["window" in read(tmp_path, step)[1] for step in (4, 8, 9)] == [True, False, True]


def resumable(folder: Path, model: nn.Module, steps: range, dense: Dense, **options: Any) -> None:
    optimizer = sgd(model)
    with windowed(folder, model, optimizer, start_step=steps.start, **options) as recorder:
        for step in steps:
            loss = loss_of(model, double_batch(step))
            loss.backward()
            recorder.observe(double_batch(step), loss)
            if step == len(dense.x):
                dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("windows", [True, False])
def test_a_resumed_run_keeps_the_window_of_the_step_that_it_completes(windows: bool, tmp_path: Path) -> None:
    model, dense = network().double(), Dense()
    resumable(tmp_path, model, range(6), dense)
    before, metadata = read(tmp_path, 6)
    assert not of_kind(before, "grad")
    resumable(tmp_path, model, range(6, 10), dense, windows=windows)
    after, completed = read(tmp_path, 6)
    assert of_kind(after, "grad")
    assert completed["window"] == metadata["window"]
    assert {name for name in before if name.startswith("window/")} <= completed["checksum"].keys()
    assert recorded_steps(tmp_path) == [0, 4, 6, 8, 10]
    if windows:
        dense.check(tmp_path, 1e-12)
    else:
        assert "window" not in read(tmp_path, 8)[1]


def test_a_resumed_run_begins_its_window_where_it_begins(tmp_path: Path) -> None:
    """Also from a checkpoint that was not recorded, or recorded with its step; that point is recorded then."""
    model, dense = network().double(), Dense()
    resumable(tmp_path, model, range(6), dense)
    checkpoint = copy.deepcopy(model)
    resumable(tmp_path, model, range(6, 9), dense)
    dense.x, dense.g, dense.f = dense.x[:6], dense.g[:6], dense.f[:6]
    resumable(tmp_path, checkpoint, range(6, 9), dense)  # step 6 was complete, with the same parameters
    assert recorded_steps(tmp_path) == [0, 4, 6, 8, 9]
    dense.check(tmp_path, 1e-12)
    other, dense = network(3).double(), Dense()
    dense.x, dense.g, dense.f = [{}] * 5, [{}] * 5, [0.0] * 5
    resumable(tmp_path, other, range(5, 7), dense)
    assert recorded_steps(tmp_path) == [0, 4, 5, 7]
    assert "window" not in read(tmp_path, 5)[1]
    assert read(tmp_path, 7)[1]["window"]["from"] == 5


def test_a_step_with_other_parameters_takes_no_window_over(tmp_path: Path) -> None:
    resumable(tmp_path, network().double(), range(6), Dense())
    resumable(tmp_path, network(3).double(), range(6, 8), Dense())
    assert "window" not in read(tmp_path, 6)[1]


def test_schedules_that_delete_records_are_refused(tmp_path: Path) -> None:
    model = network()
    for schedule in (None, Budget(bytes=10**6)):
        with pytest.raises(RecorderError, match=r"total_steps=, every="):
            Recorder(tmp_path / "run", model, sgd(model), schedule=schedule, windows=True)
        assert not (tmp_path / "run").exists()
    for options in ({"total_steps": 5}, {"schedule": Budget(total_steps=5)}, {"every": 2}):
        Recorder(tmp_path / str(options), model, sgd(model), windows=True, quiet=True, **options).close()


def test_the_plan_and_the_disk_check_count_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(1000, 100)
    sizes = []
    for windows in (False, True):
        budget = Budget(bytes=20_000_000, total_steps=100)
        with Recorder(tmp_path / str(windows), model, sgd(model), schedule=budget, windows=windows) as recorder:
            loss = model(torch.zeros(1, 1000)).sum()
            loss.backward()
            recorder.observe(torch.zeros(1, 1000), loss)
            recorder._optimizer.step()
        sizes.append(capsys.readouterr().err)
    assert "804 kB a record" in sizes[0] or "805 kB a record" in sizes[0]
    assert "1.2 MB a record" in sizes[1]


def test_nothing_waits_for_the_device_between_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value of a tensor is read while a step is summed; losses on a CPU are numbers already."""
    model = network()
    with windowed(tmp_path, model, sgd(model), every=100) as recorder:
        train(model, recorder._optimizer, 1, recorder)
        for name in ("iterate", "gradients", "check_frozen"):
            monkeypatch.setattr(recorder._model, name, lambda *_: 1 / 0)
        batch = batch_of(1)
        for _ in range(2):
            loss_of(model, batch).backward()
            recorder.observe(batch, 1.0)
            with monkeypatch.context() as patch:
                for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
                    patch.setattr(torch.Tensor, name, lambda *_: 1 / 0)
                recorder.clip_grad_norm_(0.1)
                recorder._optimizer.step()
            recorder._optimizer.zero_grad()
        monkeypatch.undo()
    assert read(tmp_path, 3)[1]["window"]["steps"] == 3


# Reading

WINDOW = {"from": 2, "steps": 1, "grad_dot_offset": -0.5, "loss_sum": 2.5, "grad_sq_sum": 3.0}
G = {"window/layer.weight": np.ones((3, 2), np.float32), "window/layer.bias": np.zeros(2, np.float32)}


def rewrite(run: Path, step: int, tensors: dict[str, np.ndarray], **metadata: Any) -> None:
    held, known = read(run, step)
    arrays = {name: tensor.numpy() for name, tensor in held.items()}
    known.pop("format")
    write_plain_step(run, known.pop("step"), {**arrays, **tensors}, **known, **metadata)


def test_windows_are_read(plain_run: Path) -> None:
    rewrite(plain_run, 3, G, window=WINDOW)
    rewrite(plain_run, 4, G, window={**WINDOW, "from": 3, "steps": 0, "loss_sum": None, "grad_sq_sum": None})
    snapshots = open_trajectory(plain_run).snapshots
    assert snapshots[2].window is None
    assert not snapshots[2].window_gradient
    window = snapshots[3].window
    assert window is not None
    assert (window.start, window.steps, window.grad_dot_offset) == (2, 1, -0.5)
    assert (window.loss_sum, window.grad_sq_sum) == (2.5, 3.0)
    assert snapshots[3].window_gradient["layer.weight"].shape == (3, 2)
    empty = snapshots[4].window
    assert empty is not None
    assert (empty.steps, empty.loss_sum, empty.grad_sq_sum) == (0, None, None)


def test_recorded_windows_are_read(tmp_path: Path) -> None:
    model = network()
    with windowed(tmp_path, model, sgd(model), every=3) as recorder:
        train(model, recorder._optimizer, 5, recorder)
    trajectory = open_trajectory(tmp_path)
    assert [s.window.start if s.window else None for s in trajectory.snapshots] == [None, 0, 3]
    assert set(trajectory.snapshots[2].window_gradient) == set(weights(model))


BAD: dict[str, tuple[Any, dict[str, np.ndarray], str]] = {
    "steps below zero": ({"steps": -1}, G, "'window.steps' is -1"),
    "from below zero": ({"from": -1}, G, "'window.from' is -1"),
    "from itself": ({"from": 3, "steps": 0}, G, "from step 3 on; expected at most those before step 3"),
    "from later": ({"from": 4, "steps": 0}, G, "from step 4 on"),
    "too many steps": ({"steps": 2}, G, "2 steps from step 2 on"),
    "no start": ({"from": None}, G, "lacks 'from'"),
    "no offset": ({"grad_dot_offset": None}, G, "lacks 'grad_dot_offset'"),
    "not a number": ({"grad_dot_offset": float("nan")}, G, "window.grad_dot_offset' is nan"),
    "not finite": ({"loss_sum": float("inf")}, G, "window.loss_sum' is inf"),
    "a flag": ({"grad_sq_sum": True}, G, "window.grad_sq_sum' is True"),
    "a negative square": ({"grad_sq_sum": -1.0}, G, "window.grad_sq_sum' is -1.0"),
    "no metadata": (None, G, "tensors window/... without metadata 'window'"),
    "no tensors": ({}, {}, "metadata 'window' without tensors"),
    "a missing tensor": ({}, {"window/layer.bias": G["window/layer.bias"]}, "lacks tensor window/layer.weight"),
    "an extra tensor": ({}, {**G, "window/other": np.ones(1, np.float32)}, "holds window/other"),
    "another shape": ({}, {**G, "window/layer.bias": np.ones(3, np.float32)}, "window/layer.bias has shape"),
    "integers": ({}, {**G, "window/layer.bias": np.ones(2, np.int64)}, "window/layer.bias: dtype I64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_windows(case: str, plain_run: Path) -> None:
    changes, tensors, message = BAD[case]
    extra = {} if changes is None else {"window": {**WINDOW, **changes}}
    rewrite(plain_run, 3, tensors, **extra)
    with pytest.raises(StepFileError, match="step-000000003") as caught:
        open_trajectory(plain_run)
    assert message in str(caught.value)
    trajectory = open_trajectory(plain_run, skip_bad=True)
    assert list(trajectory.left_out) == [3]


def test_windows_that_are_not_finite(plain_run: Path) -> None:
    bad = {**G, "window/layer.bias": np.array([0.0, np.inf], np.float32)}
    rewrite(plain_run, 3, bad, window=WINDOW)
    whole = open_trajectory(plain_run)
    assert find_bad_steps(whole) == {3: "step 3, tensor window/layer.bias: holds NaN or Inf"}
    assert cut_at_divergence(whole) is whole
    rewrite(plain_run, 10, bad, window={**WINDOW, "from": 9})
    cut = cut_at_divergence(open_trajectory(plain_run))
    assert cut.ended == "the run ends in NaN or Inf: step 10, tensor window/layer.bias"
    assert cut.steps[-1] == 10
    assert cut.snapshots[-1].window is None
    assert not cut.snapshots[-1].window_gradient


def test_a_window_that_is_no_object(plain_run: Path) -> None:
    rewrite(plain_run, 3, G, window=[1])
    with pytest.raises(StepFileError, match=r"'window' is \[1\]; expected an object"):
        open_trajectory(plain_run)

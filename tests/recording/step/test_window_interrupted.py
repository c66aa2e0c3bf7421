"""Steps that the loss scaler skips, that fail half way or are interrupted void or keep a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import batch_of, loss_of, network, read, recorded_steps, sgd, train
from torch import Tensor, nn
from window_reference import Dense, double_batch
from windowed_runs import windowed

from trajcheck.recording.step.window_sums import WindowSums


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

        monkeypatch.setattr(WindowSums, "count", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(model, optimizer, 1, recorder)
        recorder._observations.reset()
        train(model, optimizer, 3, recorder)
    assert ["window" in read(tmp_path, step)[1] for step in (4, 8, 9)] == [True, False, True]

"""What a step may look like: accumulated, abandoned and clipped gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import batch_of, loss_of, network, read, recorded_steps, sgd, train
from torch import nn
from window_reference import Dense, double_batch
from windowed_runs import windowed

from trajcheck.recording.schedule.schedules import Listed


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

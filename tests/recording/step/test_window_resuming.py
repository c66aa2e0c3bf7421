"""Windows of a resumed run, their plan and their room on the disk."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import batch_of, loss_of, network, read, recorded_steps, sgd, train
from torch import nn
from window_reference import Dense, double_batch, of_kind
from windowed_runs import windowed

from trajcheck.errors import RecorderError
from trajcheck.recording.model import surroundings
from trajcheck.recording.model.content_prints import Difference
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Budget


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
    with pytest.warns(RuntimeWarning, match="something changed parameters between the job before and this one"):
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
        for name in ("iterate", "gradients"):
            monkeypatch.setattr(recorder._model, name, lambda *_: 1 / 0)
        monkeypatch.setattr(surroundings, "bit_prints", lambda *_: 1 / 0)
        monkeypatch.setattr(Difference, "at_hand", False)  # as on another device
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

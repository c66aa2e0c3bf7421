"""Recorder(overhead=): what becomes of a run whose records take too long, and that training does not notice."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clock import Clock
from loops import batch_of, loss_of, network, read, recorded_steps, run_json, sgd, train, weights
from window_reference import Dense, double_batch

from trajcheck.errors import RecorderError
from trajcheck.recording import recorder as recorder_module
from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Budget, Every, Pairs
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.runs.trajectory import open_trajectory
from trajcheck.scalars.rows import choose_rows

STEP, RECORD = 0.01, 0.6  # seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time passes only where the tests say so, and in copying x_t."""
    clock, iterate = Clock(), RecordedModel.iterate

    def slow(self: RecordedModel, *arguments: Any) -> Any:
        clock.now += RECORD
        return iterate(self, *arguments)

    monkeypatch.setattr(RecordedModel, "iterate", slow)
    monkeypatch.setattr(recorder_module, "TimeSpent", partial(TimeSpent, clock))
    return clock


def run(folder: Path, clock: Clock, steps: int = 400, **options: Any) -> tuple[list[int], Recorder]:
    model = network()
    optimizer = sgd(model)

    def tick(step: int) -> None:
        clock.now += STEP

    with Recorder(folder, model, optimizer, strict=True, **options) as recorder:
        train(model, optimizer, steps, recorder, after=tick)
    return recorded_steps(folder), recorder


@pytest.mark.parametrize("options", [{}, {"total_steps": 400}, {"schedule": Budget()}, {"every": 1, "overhead": 0.05}])
def test_slow_records_are_left_out_in_pairs_and_it_is_said(
    options: dict[str, Any], tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, recorder = run(tmp_path, clock, **options)
    assert steps[-1] == 400
    assert steps[:2] == [0, 1]
    assert 2 < len(steps) < 12
    assert all(step ^ 1 in steps for step in steps[:-1])
    assert recorder.spent.records <= 2 + 0.05 * recorder.spent.training
    said = [line for line in capsys.readouterr().err.splitlines() if "not recorded" in line]
    assert len(said) == 1
    assert "a record takes 600 ms of the training loop, a step 10 ms, and overhead=0.05 allows 5%" in said[0]
    left_out = [read(tmp_path, step)[1].get("left_out", 0) for step in steps]
    gaps = [after - before - 1 for before, after in pairwise(steps)]
    assert left_out[1:] == gaps if "total_steps" in options or "every" in options else sum(left_out) > 0
    assert run_json(tmp_path)["overhead"] == 0.05
    rows = choose_rows(open_trajectory(tmp_path), slice(0, None, 1))
    assert rows.stride == 1
    assert rows.point_weights("own").of(np.array([True] * (len(steps) - 1) + [False])).sum() == 400


@pytest.mark.parametrize("options", [{"every": 1}, {"overhead": None}, {"schedule": Every(1)}])
def test_an_order_is_an_order(
    options: dict[str, Any], tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, clock, 30, **options)[0] == list(range(31))
    assert "not recorded" not in capsys.readouterr().err
    assert run_json(tmp_path)["overhead"] is None
    assert "left_out" not in read(tmp_path, 30)[1]


def test_pairs_of_an_explicit_schedule(tmp_path: Path, clock: Clock) -> None:
    steps, _ = run(tmp_path, clock, 1601, schedule=Pairs(5), overhead=0.2)
    assert 4 < len(steps) < 160  # gaps are drawn, from the run's random id
    assert all((step + 1 if step % 5 == 0 else step - 1) in steps for step in steps[:-1])


def test_windows_extend_to_the_next_record(tmp_path: Path, clock: Clock) -> None:
    model = network().double()
    optimizer = sgd(model, momentum=0.9)
    dense = Dense()
    with Recorder(
        tmp_path, model, optimizer, every=3, overhead=0.05, windows=True, strict=True, quiet=True
    ) as recorder:
        for step in range(400):
            batch = double_batch(step)
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
            clock.now += STEP
    steps = recorded_steps(tmp_path)
    assert max(after - before for before, after in pairwise(steps)) > 30
    dense.check(tmp_path, 1e-12)
    assert sum(read(tmp_path, step)[1].get("left_out", 0) for step in steps) == 134 - (len(steps) - 1)


def test_training_is_bit_identical_when_records_are_left_out(tmp_path: Path, clock: Clock) -> None:
    plain, recorded = network(), network()
    torch.manual_seed(1)
    train(plain, sgd(plain, momentum=0.9, nesterov=True, foreach=True), 100)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    optimizer = sgd(recorded, momentum=0.9, nesterov=True, foreach=True)
    with Recorder(tmp_path, recorded, optimizer, strict=True, quiet=True) as recorder:
        train(recorded, optimizer, 100, recorder)
    assert len(recorded_steps(tmp_path)) < 20
    assert all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(recorded).values(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_time_in_the_recorder_is_told(tmp_path: Path, clock: Clock) -> None:
    _, recorder = run(tmp_path, clock, 20, every=2)
    assert recorder.spent.steps == 19
    assert recorder.spent.recorded_steps == 9  # and the first step, which does not count
    assert recorder.spent.records == pytest.approx(9 * RECORD)
    assert recorder.spent.training == pytest.approx(19 * STEP)
    assert recorder.spent.share == pytest.approx(9 * RECORD / (19 * STEP))


@pytest.mark.parametrize("overhead", [0, -0.1, float("nan"), float("inf"), True, "5%"])
def test_what_is_no_share_is_refused(overhead: Any, tmp_path: Path) -> None:
    model = network()
    with pytest.raises(RecorderError, match=r"overhead=.*expected the share"):
        Recorder(tmp_path / "run", model, sgd(model), overhead=overhead)
    assert not (tmp_path / "run").exists()


def test_a_resumed_job_gets_to_its_first_step(tmp_path: Path, clock: Clock) -> None:
    """Its first step is recorded and completes the last iterate, whatever records cost."""
    model = network()
    optimizer = sgd(model)
    for start in (0, 7):
        with Recorder(tmp_path, model, optimizer, start_step=start, strict=True, quiet=True) as recorder:
            train(model, optimizer, range(start, start + 7), recorder)
    assert {0, 1, 7, 14} <= set(recorded_steps(tmp_path))
    assert torch.equal(read(tmp_path, 7)[0]["batch/0"], batch_of(7)[0])

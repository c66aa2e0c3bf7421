"""trajcheck/recording/run/holding.py: a run has one recorder at a time, on whatever machine."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import network, recorded_steps, sgd, train
from remains import DEAD, ELSEWHERE, lease_of
from torch import nn

from trajcheck import Recorder
from trajcheck.commands.verify.command import verify
from trajcheck.errors import HeldRunError, RecorderError
from trajcheck.files import leases
from trajcheck.recording.run.holding import RECORDING, joined_lease, run_lease


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "SILENT", 0.4)


def recorded(run: Path, start: int, model: nn.Module | None = None, **options: Any) -> nn.Module:
    """Three steps, of a new model or one that goes on."""
    model = network() if model is None else model
    with Recorder(run, model, sgd(model), every=1, start_step=start, **options) as recorder:
        train(model, recorder._optimizer, 3, recorder)
    return model


def files(run: Path) -> dict[str, bytes]:
    """Of the run, without the lease."""
    return {path.name: path.read_bytes() for path in run.glob("*") if path.name != RECORDING and path.is_file()}


@pytest.mark.parametrize("start", [2, 3])
def test_the_second_is_told_who_holds_it_and_trains_unrecorded(tmp_path: Path, start: int) -> None:
    run = tmp_path / "run"
    recorded(run, 0, quiet=True)
    lease_of(run / RECORDING, os.getppid())
    before = files(run)
    said = f"is being recorded by process {os.getppid()} on node7, since 2026-01-02 03:04:05"
    with pytest.warns(RuntimeWarning, match=said):
        there = recorded(run, start, quiet=True).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = recorded(tmp_path / "alone", 0, quiet=True).state_dict()
    assert all(torch.equal(there[name], alone[name]) for name in alone)
    assert files(run) == before and verify(run).runs[0].damage == []
    with pytest.raises(HeldRunError, match="node7"):
        recorded(run, start, quiet=True, strict=True)
    with pytest.raises(RecorderError, match="already holds a run, being recorded by process"):
        recorded(run, 0, quiet=True)


def test_two_recorders_of_one_process(tmp_path: Path) -> None:
    model, run = network(), tmp_path / "run"
    with Recorder(run, model, sgd(model), every=1, quiet=True) as first:
        train(model, first._optimizer, 2, first)
        with pytest.raises(HeldRunError, match="this very process is recording this run"):
            recorded(run, 2, quiet=True, strict=True)
        train(model, first._optimizer, 1, first)
    assert recorded_steps(run) == [0, 1, 2, 3] and not (run / RECORDING).exists()


def test_a_job_that_follows_a_dead_one_here_does_not_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    model = recorded(run, 0, quiet=True)
    lease_of(run / RECORDING, DEAD)
    recorded(run, 3, model, strict=True)
    assert f"goes on after process {DEAD} on node7" in capsys.readouterr().err
    assert recorded_steps(run) == list(range(7)) and not (run / RECORDING).exists()


def test_one_of_another_machine_is_watched_and_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    model = recorded(run, 0, quiet=True)
    os.utime(lease_of(run / RECORDING, DEAD, ELSEWHERE))
    recorded(run, 3, model, strict=True)
    said = capsys.readouterr().err
    assert "may be recording this run" in said and "has given no sign of life since" in said
    assert recorded_steps(run) == list(range(7))


def test_one_that_was_taken_for_dead_stops(tmp_path: Path) -> None:
    """As a process that was stopped for a night, and goes on when another has gone on with the run."""
    model, run = network(), tmp_path / "run"
    with (
        pytest.warns(RuntimeWarning, match="another recorder has taken over this run, being recorded by"),
        Recorder(run, model, sgd(model), every=1, quiet=True) as recorder,
    ):
        train(model, recorder._optimizer, 2, recorder)
        recorder._steps._of.writer.flush()  # type: ignore[union-attr]
        (run / RECORDING).unlink()
        lease_of(run / RECORDING, DEAD, ELSEWHERE)
        before = files(run)
        train(model, recorder._optimizer, 3, recorder)
    assert files(run) == before and (run / RECORDING).exists()


def test_links_in_a_run_lead_nowhere(tmp_path: Path) -> None:
    run, away = tmp_path / "run", tmp_path / "away"
    away.mkdir()
    recorded(run, 0, quiet=True)
    (run / "superseded").symlink_to(away)
    before = files(run)
    with pytest.warns(RuntimeWarning, match="superseded'?: is a link|is a link, which is not followed"):
        recorded(run, 2, quiet=True)
    assert os.listdir(away) == [] and {name for name in before if name.startswith("step")} <= set(os.listdir(run))
    (tmp_path / "victim").write_text("precious")
    other = tmp_path / "other"
    other.mkdir()
    (other / RECORDING).symlink_to(tmp_path / "victim")
    with pytest.warns(RuntimeWarning, match="not what trajcheck writes there"):
        recorded(other, 0, quiet=True)
    assert (tmp_path / "victim").read_text() == "precious" and os.listdir(other) == [RECORDING]


def test_another_rank_writes_on_while_the_first_has_made_the_next_recorder(tmp_path: Path) -> None:
    first = run_lease(tmp_path, print)
    other = joined_lease(tmp_path, first.token)
    assert not other.lost
    first.release()
    assert not other.lost
    again = run_lease(tmp_path, print)
    assert again.token != other.token and not other.lost
    other.check()
    again.release()
    lease_of(tmp_path / RECORDING, DEAD, ELSEWHERE)
    assert other.lost
    with pytest.raises(HeldRunError, match="another recorder has taken over this run"):
        other.check()

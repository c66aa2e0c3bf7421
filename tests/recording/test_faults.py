"""The Recorder killed and out of disk, a handful of trials of `python -m benchmarks.faults recorder`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from loops import network, recorded_steps, sgd, train

from benchmarks.faults import recorder as faults
from benchmarks.faults.table import Trials, show
from benchmarks.faults.training import RECORDINGS, STEPS
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.run import background_writer as record_writer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a fork has none of the others
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_killed_at_random_moments(recording: str, tmp_path: Path) -> None:
    expected = faults.undisturbed(recording, tmp_path / "expected")
    row, stream = Trials(recording), Random(recording)
    while row.trials < 3:
        faults.killed(expected, recording, tmp_path / f"trial-{row.trials}", stream, row)
    assert row.wrong == 0, row.faults


@pytest.mark.parametrize("trial", [faults.out_of_disk, faults.on_a_small_disk])
def test_out_of_disk(trial: object, tmp_path: Path) -> None:
    if trial is faults.on_a_small_disk and not faults.can_mount(tmp_path / "probe"):
        pytest.skip("no file system can be mounted here")
    expected = faults.undisturbed("every step", tmp_path / "expected")
    row, stream = Trials("full"), Random(3)
    for number in range(3):
        assert callable(trial)
        trial(expected, "every step", tmp_path / f"trial-{number}", stream, row)
    assert (row.trials, row.wrong) == (3, 0), row.faults


def test_the_trials_see_what_they_should(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step file that is another one, damaged, or not there."""
    expected = faults.undisturbed("every step", tmp_path / "expected")
    other = tmp_path / "other"
    other.mkdir()
    torch.manual_seed(1)
    faults.train(other / "run", other / "checkpoint", "full batch, probe")
    checkpoint = other / "checkpoint"
    wrong = faults._gone_on(expected, other / "run", checkpoint, "every step")
    assert any("is not that of the undisturbed training" in each for each in wrong)
    (expected.run / "step-000000007.safetensors").rename(tmp_path / "gone")
    wrong = faults._after_fault(expected, expected.run, STEPS, "every step", [])
    assert wrong == []
    for step in range(20, STEPS + 1):
        (expected.run / f"step-{step:09d}.safetensors").unlink()
    wrong = faults._after_fault(expected, expected.run, STEPS, "every step", [])
    assert wrong == [f"step {STEPS} had begun, and the last record is of step 19"]
    row = Trials("some fault")
    row.count(wrong, ["killed"])
    show([row])
    assert "some fault       1              1  killed 1" in capsys.readouterr().out


def test_a_checkpoint_is_never_ahead_of_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """state_dict() waits for the disk: what a job goes on from must not leave a gap."""
    write, disk = record_writer.write_step, threading.Event()

    def slow(*arguments: object) -> object:
        disk.wait(0.3)
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(record_writer, "write_step", slow)
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 3, recorder)
        assert recorder.state_dict()["step"] == 3
        assert recorded_steps(tmp_path) == [0, 1, 2]
        disk.set()

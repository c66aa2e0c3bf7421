"""trajcheck.recording.recorder: whatever fails inside it stops the recording, loudly and once, and not the training."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import batch_of, loss_of, network, read, recorded_steps, sgd, train, waiting_disk, weights

from trajcheck.errors import OutputError, RecorderError
from trajcheck.recording.model import surroundings
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.run import background_writer as record_writer


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk is full after so many step files."""
    write = record_writer.write_step
    written: list[int] = []

    def write_step(*arguments: Any) -> Path:
        if len(written) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(1)
        return write(*arguments)

    monkeypatch.setattr(record_writer, "write_step", write_step)


def wait_for(folder: Path, files: int) -> None:
    """Until the writer has written so many steps."""
    until = time.monotonic() + 60
    while len(recorded_steps(folder)) < files or list(folder.glob(".step*")):
        assert time.monotonic() < until
        time.sleep(0.01)


def untouched(steps: int) -> dict[str, torch.Tensor]:
    model = network()
    train(model, sgd(model), steps)
    return weights(model)


def test_a_full_disk_stops_the_recording_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full_disk(monkeypatch, after=3)
    model = network()
    with (
        pytest.warns(RuntimeWarning, match="training goes on.*No space left") as caught,
        Recorder(tmp_path, model, sgd(model), every=1) as recorder,
    ):
        train(model, recorder._optimizer, 20, recorder)
        assert not recorder.active
    assert len(caught) == 1
    assert capsys.readouterr().err.count("No space left") == 1
    assert recorded_steps(tmp_path) == [0, 1, 2]
    assert all(torch.equal(a, b) for a, b in zip(weights(model).values(), untouched(20).values(), strict=True))


def test_a_full_disk_raises_when_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, after=3)
    model = network()
    with (
        pytest.raises(OutputError, match="No space left"),
        Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder,
    ):
        train(model, recorder._optimizer, 20, recorder)
    assert recorded_steps(tmp_path) == [0, 1, 2]


def test_nothing_is_written_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap in the middle of a run would go unnoticed; its end does not."""
    write, disk = record_writer.write_step, threading.Event()

    def write_step(folder: Path, step: int, *rest: Any) -> Path:
        disk.wait(60)
        if step == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(folder, step, *rest)

    monkeypatch.setattr(record_writer, "write_step", write_step)
    model = network()
    recorder = Recorder(tmp_path, model, sgd(model), every=1, quiet=True)
    train(model, recorder._optimizer, 3, recorder)
    disk.set()
    with pytest.warns(RuntimeWarning, match="No space left"):
        recorder.close()
    assert recorded_steps(tmp_path) == [0]


def test_a_full_disk_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, after=2)
    model = network()
    recorder = Recorder(tmp_path, model, sgd(model), every=1, quiet=True)
    train(model, recorder._optimizer, 2, recorder)
    with pytest.warns(RuntimeWarning, match="No space left"):
        recorder.close()
    recorder.close()
    model = network()
    monkeypatch.undo()
    full_disk(monkeypatch, after=0)
    recorder = Recorder(tmp_path / "strict", model, sgd(model), every=1, quiet=True, strict=True)
    with pytest.raises(OutputError, match="No space left"):
        recorder.close()


def test_a_failure_does_not_hide_the_exception_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, after=0)
    model = network()
    with (
        pytest.warns(RuntimeWarning, match="No space left"),
        pytest.raises(ZeroDivisionError),
        Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True),
    ):
        raise ZeroDivisionError


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file stands where the folder should be (permissions do not hold root back)."""
    (tmp_path / "file").write_text("")
    model = network()
    with (
        pytest.warns(RuntimeWarning, match="training goes on") as caught,
        Recorder(tmp_path / "file/run", model, sgd(model), every=1, quiet=True) as recorder,
    ):
        train(model, recorder._optimizer, 3, recorder)
        recorder.clip_grad_norm_(1.0)
    assert len(caught) == 1
    assert all(torch.equal(a, b) for a, b in zip(weights(model).values(), untouched(3).values(), strict=True))
    with pytest.raises(OutputError, match="run"):
        Recorder(tmp_path / "file/run", model, sgd(model), strict=True, quiet=True)


def test_a_folder_that_disappears(tmp_path: Path) -> None:
    model = network()
    with (
        pytest.warns(RuntimeWarning, match="stopped"),
        Recorder(tmp_path / "run", model, sgd(model), every=1, quiet=True) as recorder,
    ):
        train(model, recorder._optimizer, 2, recorder)
        wait_for(tmp_path / "run", 2)
        shutil.rmtree(tmp_path / "run")
        train(model, recorder._optimizer, 10, recorder)


def test_a_bug_inside_is_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, quiet=True) as recorder:
        train(model, recorder._optimizer, 2, recorder)
        monkeypatch.setattr(recorder._model, "iterate", lambda *_: 1 / 0)
        with pytest.warns(RuntimeWarning, match="step 2: ZeroDivisionError"):
            train(model, recorder._optimizer, 2, recorder)
    assert recorded_steps(tmp_path) == [0, 1]


def test_an_unsuitable_batch_is_named(tmp_path: Path) -> None:
    model = network()
    with (
        Recorder(tmp_path, model, sgd(model), every=1, quiet=True) as recorder,
        pytest.warns(RuntimeWarning, match=r"batch\['image'\] is a PosixPath") as caught,
    ):
        loss_of(model, batch_of(0)).backward()
        recorder.observe({"image": tmp_path}, 1.0)
    assert caught[0].filename == __file__, "the warning points at the loop"


Usage = namedtuple("Usage", "total used free")


def test_free_disk_is_checked_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6, 50_000))
    model = network()
    with pytest.raises(RecorderError, match=r"needs at least .* 50\.0 kB are free"):
        Recorder(tmp_path / "a", model, sgd(model), every=1, total_steps=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6, 1000))
    with pytest.raises(RecorderError, match="are free"):
        Recorder(tmp_path / "b", model, sgd(model))


def test_free_disk_is_checked_while_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    with (
        pytest.warns(RuntimeWarning, match="are free on this disk, and step 2 needs"),
        Recorder(tmp_path, model, sgd(model), every=1, quiet=True) as recorder,
    ):
        train(model, recorder._optimizer, 2, recorder)
        wait_for(tmp_path, 2)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6, 1000))
        train(model, recorder._optimizer, 10, recorder)
    assert recorded_steps(tmp_path) == [0, 1]


def test_training_waits_only_when_the_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = waiting_disk(monkeypatch)
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 1 + record_writer.QUEUE_LENGTH, recorder)  # would hang if it waited
        assert recorded_steps(tmp_path) == []
        trained = threading.Thread(target=train, args=(model, recorder._optimizer, 1, recorder))
        trained.start()
        trained.join(0.3)
        assert trained.is_alive()
        disk.set()
        trained.join(60)
    assert recorded_steps(tmp_path) == list(range(5))


def test_unscheduled_steps_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor is copied, no generator read."""
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=10, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 1, recorder)
        with monkeypatch.context() as patch:
            for name in ("iterate", "gradients"):
                patch.setattr(recorder._model, name, lambda *_: 1 / 0)
            patch.setattr(surroundings, "bit_prints", lambda *_: 1 / 0)
            patch.setattr(torch, "get_rng_state", lambda: 1 / 0)
            train(model, recorder._optimizer, 8, recorder)
    assert recorded_steps(tmp_path) == [0, 9]
    assert read(tmp_path, 9)[1]["tau"] == [1.125]

"""Recorder.probe and what is read of the batches that it sets aside."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import batch_of, network, recorded_steps, sgd, train, weights
from plain_run_files import write_plain_step
from remains import DEAD, temporary_of
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from trajcheck.errors import OutputError, RecorderError, RunError, StepFileError
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.run import probe_batches
from trajcheck.runs.batch_restoring import unflatten
from trajcheck.runs.divergence import cut_at_divergence
from trajcheck.runs.formats.recognise import recognise
from trajcheck.runs.trajectory import open_trajectory


def recorder_in(folder: Path, **options: Any) -> Recorder:
    model = network()
    return Recorder(folder, model, sgd(model), **{"every": 1, "strict": True, "quiet": True, **options})


def stored(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(folder / "probe-000.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["trajcheck"])  # noqa: SIM118


@pytest.mark.parametrize("when", ["before", "after"])
def test_batches_are_stored_and_read(when: str, tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
        if when == "after":
            train(model, recorder._optimizer, 1, recorder)
        assert recorder.probe(batch_of(i) for i in range(3)) is None  # type: ignore[func-returns-value]
    tensors, metadata = stored(tmp_path)
    assert set(tensors) == {f"batch/{i}/{j}" for i in range(3) for j in range(2)}
    assert all(torch.equal(tensors[f"batch/{i}/{j}"], batch_of(i)[j]) for i in range(3) for j in range(2))
    assert metadata.keys() == {"format", "batches", "checksum"}
    assert metadata["format"] == 1
    assert metadata["batches"] == 3
    assert metadata["checksum"].keys() == {*tensors, "metadata"}
    assert recorded_steps(tmp_path) == ([0, 1] if when == "after" else [0])
    (probe,) = open_trajectory(tmp_path).probes
    assert probe.batches == 3
    assert probe.batch_tree is None
    assert probe.path == str(tmp_path / "probe-000.safetensors")
    extent = probe.batch["1/0"]
    raw = Path(extent.path).read_bytes()[extent.offset : extent.offset + extent.length]
    assert np.array_equal(np.frombuffer(raw, np.float32).reshape(extent.shape), batch_of(1)[0].numpy())
    whole = unflatten({name: name for name in probe.batch}, probe.batch_tree)
    assert whole == (("0/0", "0/1"), ("1/0", "1/1"), ("2/0", "2/1"))


@pytest.mark.parametrize(
    ("batches", "names", "has_tree"),
    [
        ([torch.ones(2)], ["0"], False),
        ([torch.ones(2), torch.zeros(3)], ["0", "1"], False),
        ([{"x": torch.ones(2)}], ["0/x"], False),
        ([{"x": torch.ones(2), "task": "a"}, {"x": [torch.ones(2)]}], ["0/x", "1/x/0"], True),
    ],
)
def test_batches_of_any_kind(batches: list[Any], names: list[str], has_tree: bool, tmp_path: Path) -> None:
    with recorder_in(tmp_path) as recorder:
        recorder.probe(batches)
    (probe,) = open_trajectory(tmp_path).probes
    assert sorted(probe.batch) == names
    assert (probe.batch_tree is not None) == has_tree
    tensors, _ = stored(tmp_path)
    whole = unflatten({name: tensors[f"batch/{name}"] for name in probe.batch}, probe.batch_tree)
    assert repr(whole) == repr(tuple(batches))


def test_a_loader_may_reuse_its_memory(tmp_path: Path) -> None:
    def loader() -> Iterator[Tensor]:
        memory = torch.zeros(3)
        for i in range(2):
            yield memory.fill_(i)

    with recorder_in(tmp_path) as recorder:
        recorder.probe(loader())
    assert torch.equal(stored(tmp_path)[0]["batch/0"], torch.zeros(3))


def test_training_and_its_random_streams_do_not_notice(tmp_path: Path) -> None:
    results = []
    for probes in (False, True):
        model = network()
        with Recorder(tmp_path / str(probes), model, sgd(model), every=2, strict=True, quiet=True) as recorder:
            if probes:
                recorder.probe([batch_of(7)])
            train(model, recorder._optimizer, 2, recorder)
            if probes:
                recorder.probe([batch_of(7)])
            train(model, recorder._optimizer, 2, recorder)
        results.append([*weights(model).values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_same_batches_again_do_nothing_and_others_are_refused(tmp_path: Path) -> None:
    with recorder_in(tmp_path) as recorder:
        recorder.probe([batch_of(0)])
    path = tmp_path / "probe-000.safetensors"
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
    for others in ([batch_of(1)], [batch_of(0)] * 2, [batch_of(0)[0]], [list(batch_of(0))], [(*batch_of(0), "a")]):
        recorder = recorder_in(tmp_path, start_step=1)
        recorder.probe([batch_of(0)])
        with pytest.raises(RecorderError, match="holds other batches"):
            recorder.probe(others)
        recorder.close()
    x, y = batch_of(0)
    with pytest.raises(RecorderError, match="holds other batches"), recorder_in(tmp_path, start_step=1) as recorder:
        recorder.probe([(x.double(), y)])
    with pytest.raises(RecorderError, match="holds other batches"), recorder_in(tmp_path, start_step=1) as recorder:
        recorder.probe([(x.view(4, 6), y)])
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_damaged_probe_is_not_replaced(tmp_path: Path) -> None:
    with recorder_in(tmp_path):
        pass
    (tmp_path / "probe-000.safetensors").write_bytes(b"x")
    with (
        pytest.raises(RecorderError, match=r"cannot be used: .*probe-000"),
        recorder_in(tmp_path, start_step=1) as recorder,
    ):
        recorder.probe([batch_of(0)])


def fails() -> Iterator[Any]:
    yield batch_of(0)
    raise KeyError("labels")


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no batches"),
        ([batch_of(0), "text"], "batch 1 holds no tensor"),
        ([{"x": object()}], r"batch\['x'\] is a object"),
        (fails, "KeyError: 'labels'"),
        (3, "not iterable"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_failures_are_contained(batches: Any, message: str, strict: bool, tmp_path: Path) -> None:
    given = batches() if callable(batches) else batches
    with recorder_in(tmp_path, strict=strict) as recorder:
        with pytest.raises(RecorderError, match=message) if strict else pytest.warns(RuntimeWarning, match=message):
            recorder.probe(given)
        assert recorder.active != strict  # the run is recorded without its probe
        recorder.probe([batch_of(0)])
    assert bool(list(tmp_path.glob("*probe*"))) != strict


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, recorder_in(tmp_path / "a") as recorder:
        patch.setattr(probe_batches, "write_probe", full)
        with pytest.raises(OutputError, match="No space left"):
            recorder.probe([batch_of(0)])
    with recorder_in(tmp_path / "b") as recorder:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6, 200))
        with pytest.raises(OutputError, match="the probe needs 144 B"):
            recorder.probe([batch_of(0)])
        monkeypatch.undo()
    assert not list(tmp_path.glob("*/*probe*"))


def test_temporary_files_of_a_killed_job_are_removed(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 1, recorder)
    left = tmp_path / temporary_of(DEAD, "probe-000.safetensors")
    left.write_bytes(b"half")
    with Recorder(tmp_path, model, sgd(model), every=1, start_step=1, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 1, recorder)
    assert not left.exists()


# Reading


def write_probe(path: Path, tensors: dict[str, np.ndarray], metadata: Any) -> None:
    save_file(tensors, path, None if metadata is None else {"trajcheck": json.dumps(metadata)})


X = np.ones((4, 3), np.float32)
TREE = {"tuple": [{"tensor": "0"}, {"value": "a"}]}


def test_probe_files_written_by_hand(plain_run: Path) -> None:
    assert open_trajectory(plain_run).probes == ()
    write_probe(plain_run / "probe-010.safetensors", {"batch/0/x": X}, {"format": 1, "batches": 1})
    write_probe(plain_run / "probe-002.safetensors", {"batch/0": X}, {"format": 1, "batches": 2, "batch_tree": TREE})
    trajectory = open_trajectory(plain_run)
    assert [(Path(p.path).name, p.batches, list(p.batch)) for p in trajectory.probes] == [
        ("probe-002.safetensors", 2, ["0"]),
        ("probe-010.safetensors", 1, ["0/x"]),
    ]
    assert trajectory.steps == list(range(11))
    assert trajectory.without({3: "left out"}).probes == trajectory.probes
    write_plain_step(
        plain_run, 11, {f"param/{n}": np.full(s, np.nan, np.float32) for n, s in trajectory.shapes.items()}
    )
    cut = cut_at_divergence(open_trajectory(plain_run))
    assert cut.ended
    assert cut.probes == trajectory.probes


def test_a_probe_alone_is_no_run(tmp_path: Path) -> None:
    write_probe(tmp_path / "probe-000.safetensors", {"batch/0": X}, {"format": 1, "batches": 1})
    assert recognise(tmp_path) is None
    with pytest.raises(RunError, match="without a run"):
        open_trajectory(tmp_path)


BAD: dict[str, tuple[dict[str, np.ndarray], Any, str]] = {
    "no metadata": ({"batch/0": X}, None, "no metadata under the key 'trajcheck'"),
    "no object": ({"batch/0": X}, [1], "run format"),
    "another format": ({"batch/0": X}, {"format": 2, "batches": 1}, "run format 2"),
    "no number": ({"batch/0": X}, {"format": 1}, "'batches' is None"),
    "none": ({"batch/0": X}, {"format": 1, "batches": 0}, "'batches' is 0"),
    "below zero": ({"batch/0": X}, {"format": 1, "batches": -1}, "'batches' is -1"),
    "a flag": ({"batch/0": X}, {"format": 1, "batches": True}, "'batches' is True"),
    "a step": ({"param/w": X}, {"format": 1, "step": 3, "batches": 1}, "param/..."),
    "no index": ({"batch": X}, {"format": 1, "batches": 1}, "tensor batch/ is of none"),
    "a word": ({"batch/x": X}, {"format": 1, "batches": 1}, "tensor batch/x is of none of the 1 batches"),
    "too many": ({"batch/0": X, "batch/1": X}, {"format": 1, "batches": 1}, "tensor batch/1 is of none"),
    "padded": ({"batch/00": X}, {"format": 1, "batches": 1}, "tensor batch/00 is of none"),
    "too few": ({"batch/1": X}, {"format": 1, "batches": 2}, "no tensor batch/0"),
    "no tensors": ({}, {"format": 1, "batches": 1}, "no tensor batch/0"),
    "inside another": ({"batch/0": X, "batch/0/1": X}, {"format": 1, "batches": 1}, "batch"),
    "a foreign tree": ({"batch/0": X}, {"format": 1, "batches": 1, "batch_tree": 3}, "batch_tree holds 3"),
    "a tree of other tensors": (
        {"batch/1": X},
        {"format": 1, "batches": 2, "batch_tree": TREE},
        "names the tensor '0'",
    ),
    "a tree of other length": ({"batch/0": X}, {"format": 1, "batches": 3, "batch_tree": TREE}, "a tuple of 3 batches"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("skip_bad", [True, False])
def test_bad_probe_files(case: str, skip_bad: bool, plain_run: Path) -> None:
    tensors, metadata, message = BAD[case]
    path = plain_run / "probe-000.safetensors"
    write_probe(path, tensors, metadata)
    with pytest.raises(StepFileError) as caught:
        open_trajectory(plain_run, skip_bad=skip_bad)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_damaged_and_doubled_probe_files(plain_run: Path) -> None:
    path = plain_run / "probe-000.safetensors"
    write_probe(path, {"batch/0": X}, {"format": 1, "batches": 1})
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:50]):
        path.write_bytes(damaged)
        with pytest.raises(StepFileError, match="probe-000") as caught:
            open_trajectory(plain_run, skip_bad=True)
        assert "--skip-bad" not in str(caught.value)
    path.write_bytes(whole)
    (plain_run / "probe-0.safetensors").write_bytes(whole)
    with pytest.raises(RunError, match="are both probe 0"):
        open_trajectory(plain_run)
    (plain_run / "probe-0.safetensors").unlink()
    (plain_run / "probe-001.safetensors").mkdir()
    with pytest.raises(RunError, match="not a regular file"):
        open_trajectory(plain_run)

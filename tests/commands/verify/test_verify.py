"""trajcheck verify: whatever is changed, lost or left behind in a run's folder is found, a whole run is called so."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loops import batch_of, network, sgd, train
from places import SAMPLES
from plain_run_files import Outcome, write_plain_step
from rank_files import changed, cut_run, rank_file
from remains import DEAD, temporary_of
from run_files import amend
from safetensors.numpy import load_file

import trajcheck
from trajcheck.errors import RunError, UsageError
from trajcheck.recording.recorder import Recorder
from trajcheck.runs.formats.native import file_check

Cli = Callable[..., Outcome]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Six steps and a probe, as the Recorder writes them."""
    folder = tmp_path / "recorded"
    model = network()
    with Recorder(folder, model, sgd(model), every=1, quiet=True, strict=True) as recorder:
        recorder.probe([batch_of(0), batch_of(1)])
        train(model, recorder._optimizer, 5, recorder)
    return folder


def damage(*paths: Path) -> list[str]:
    return [each for run in trajcheck.verify(*paths).runs for each in run.damage]


def notes(path: Path) -> list[str]:
    found = trajcheck.verify(path)
    assert not found.damaged, found
    return found.runs[0].notes


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def step(run: Path, number: int) -> Path:
    return run / f"step-{number:09d}.safetensors"


def test_a_whole_run(recorded: Path) -> None:
    (run,) = trajcheck.verify(recorded).runs
    assert (run.path, run.steps, run.files, run.checked, run.damage, run.notes) == (recorded, 6, 7, 7, [], [])
    numbers = (*recorded.glob("*.safetensors"), recorded / "every-step.f64")
    assert run.bytes == sum(path.stat().st_size for path in numbers)


def test_every_run_below_a_folder(cli: Cli, tmp_path: Path, recorded: Path, plain_run: Path) -> None:
    inner = shutil.copytree(recorded, recorded / "optimizer-2")
    (recorded / "superseded").mkdir()
    shutil.copy(step(recorded, 1), recorded / "superseded")
    found = trajcheck.verify(tmp_path, recorded, threads=1)
    assert [run.path for run in found.runs] == [recorded, inner, plain_run]
    outcome = cli("verify", tmp_path)
    assert outcome.code == 0 and outcome.err == ""
    assert all(len(line) <= 80 for line in outcome.out.splitlines())
    assert "1 step files that a resumed job made way for" in outcome.out
    assert "no checksum stored: header and size checked" in " ".join(outcome.out.split())
    assert cli("verify", tmp_path, "--quiet") == (0, "", "")


def test_what_is_no_run(cli: Cli, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        assert cli("verify", path).code == 3
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file, not a run"):
        trajcheck.verify(tmp_path / "file")
    with pytest.raises(UsageError, match="--threads"):
        trajcheck.verify(tmp_path, threads=0)


def test_a_flipped_bit_of_a_header_is_found(recorded: Path) -> None:
    """The header says what numbers mean: names, shapes, the loss, the rates, the checksums themselves. (All of its
    bits, and not a fiftieth of them, take a minute.)"""
    path = step(recorded, 2)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for bit in map(int, np.random.default_rng(0).choice(8 * end, 4 * end // 25, replace=False)):
        flip(path, bit)
        assert file_check.check_step_file(path).damage or damage(recorded), f"bit {bit}: {whole[bit // 8 :][:20]!r}"
        path.write_bytes(whole)
    assert damage(recorded) == []


@pytest.mark.parametrize("name", ["step-000000003.safetensors", "probe-000.safetensors"])
def test_a_flipped_bit_of_a_tensor_is_found(recorded: Path, name: str) -> None:
    path = recorded / name
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    check = file_check.check_probe_file if name.startswith("probe") else file_check.check_step_file
    for bit in np.random.default_rng(0).integers(8 * end, 8 * len(whole), 100):
        flip(path, int(bit))
        (said,) = check(path).damage
        assert str(path) in said and "crc32" in said
        path.write_bytes(whole)


def test_checksums_are_compared_in_blocks_of_any_size(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (8, 64, 4096):
        monkeypatch.setattr(file_check, "BLOCK", size)
        assert damage(recorded) == []
    last = len(step(recorded, 3).read_bytes()) - 1
    flip(step(recorded, 3), 8 * last)
    assert len(damage(recorded)) == 1


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    for number in range(3):
        write_plain_step(tmp_path, number, {"param/x": np.zeros(5_000_000, np.float32)})
    trajcheck.verify(tmp_path, threads=1)
    tracemalloc.start()
    trajcheck.verify(tmp_path, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_one_damaged_run_among_others(cli: Cli, tmp_path: Path, recorded: Path, plain_run: Path) -> None:
    flip(step(recorded, 3), 8 * 5000)
    outcome = cli("verify", recorded, plain_run, "--quiet")
    assert outcome.code == 3 and outcome.out == ""
    assert outcome.err.startswith(f"trajcheck: damaged: {step(recorded, 3)}: tensor ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_truncated_file_is_told_once(recorded: Path, keep: int) -> None:
    path = step(recorded, 4)
    path.write_bytes(path.read_bytes()[:keep])
    (said,) = damage(recorded)
    assert said.startswith(f"{path}: ") and "runcated" in said


def test_a_pipe_in_place_of_a_file(recorded: Path) -> None:
    for path in (step(recorded, 4), recorded / "probe-000.safetensors"):
        path.unlink()
        os.mkfifo(path)
    assert len([each for each in damage(recorded) if "not a regular file" in each]) >= 2
    (recorded / "run.json").unlink()
    os.mkfifo(recorded / "run.json")
    assert any("run.json: not a regular file" in each for each in damage(recorded))


def test_run_json(recorded: Path) -> None:
    path = recorded / "run.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert any(each.startswith(f"{path}: ") for each in damage(recorded))
    path.write_text(text.replace('"name": "0.bias"', '"name": "0.base"'))
    assert "0.bas" in damage(recorded)[0]
    path.unlink()
    assert "no run.json" in notes(recorded)[0]


def test_a_run_that_has_no_step_yet(recorded: Path) -> None:
    for path in recorded.glob("*.safetensors"):
        path.unlink()
    assert notes(recorded) == ["there is no step file yet"]


def test_a_step_that_does_not_fit_the_others(plain_run: Path) -> None:
    tensors = load_file(step(plain_run, 6))
    write_plain_step(plain_run, 6, {**tensors, "param/layer.bias": np.zeros(3, np.float32)})
    (said,) = damage(plain_run)
    assert str(step(plain_run, 6)) in said and "layer.bias" in said


def test_two_files_of_one_step(plain_run: Path) -> None:
    shutil.copy(step(plain_run, 6), plain_run / "step-6.safetensors")
    (said,) = damage(plain_run)
    assert "are both step 6" in said


def test_a_batch_that_is_nowhere(plain_run: Path) -> None:
    tensors = {name: each for name, each in load_file(step(plain_run, 6)).items() if not name.startswith("batch")}
    write_plain_step(plain_run, 6, tensors, batch_from=0, lr=0.1, loss=1.0)
    assert damage(plain_run) == []
    write_plain_step(plain_run, 6, tensors, batch_from=99, lr=0.1, loss=1.0)
    (said,) = damage(plain_run)
    assert str(step(plain_run, 6)) in said and "step 99" in said


def test_frozen_parameters_that_are_nowhere(plain_run: Path) -> None:
    amend(plain_run, 6, frozen_from=99)
    (said,) = damage(plain_run)
    assert str(step(plain_run, 6)) in said and "step 99" in said


def spoil(run: Path, number: int, name: str, dtype: str = "float32") -> None:
    tensors = load_file(step(run, number))
    tensors[name] = np.full(tensors[name].shape, np.nan, dtype)
    amend(run, number, {name: tensors[name]})


def test_not_finite_in_the_middle(plain_run: Path) -> None:
    spoil(plain_run, 5, "grad/layer.bias", "float16")
    amend(plain_run, 5, skipped=True)
    assert "NaN" not in str(notes(plain_run))  # the loss scaler skipped it
    amend(plain_run, 5, skipped=False)
    (said,) = damage(plain_run)
    assert f"{step(plain_run, 5)}: step 5, tensor grad/layer.bias: holds NaN" in said


def test_a_run_that_ends_in_nan_is_not_damaged(plain_run: Path) -> None:
    for number in (8, 9, 10):
        spoil(plain_run, number, "param/layer.bias")
    assert "the run ends in NaN or Inf: step 8, tensor param/layer.bias" in notes(plain_run)


def test_a_batch_may_hold_infinity(plain_run: Path) -> None:
    spoil(plain_run, 5, "batch/0")
    assert "NaN" not in str(notes(plain_run))


def test_checksums_of_some_tensors_alone(recorded: Path) -> None:
    path = step(recorded, 2)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    metadata = json.loads(header["__metadata__"]["trajcheck"])
    del metadata["checksum"]["param/0.bias"]
    header["__metadata__"]["trajcheck"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    assert notes(recorded) == [f"{path.name}: no checksum stored of some tensors"]


def test_leftovers_are_listed(recorded: Path) -> None:
    (recorded / temporary_of(DEAD, "step-000000009.safetensors")).write_bytes(b"half a")
    assert "1 temporary files" in notes(recorded)[0] and "000000009" in notes(recorded)[0]


@pytest.mark.parametrize("fault", ["cut", "flip", "pipe"])
def test_the_exported_program(tmp_path: Path, fault: str) -> None:
    run = shutil.copytree(SAMPLES / "breast-cancer-gd", tmp_path / "run")
    path = run / "objective.json"
    assert damage(run) == []
    data = path.read_bytes()
    if fault == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(data[:-100] if fault == "cut" else data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    (said,) = damage(run)
    assert said.startswith(f"{path}: ")


def test_ranks(plain_run: Path, tmp_path: Path) -> None:
    cut = cut_run(plain_run, tmp_path / "cut", 2)
    (run,) = trajcheck.verify(cut).runs
    assert (run.steps, run.files, run.damage) == (11, 22, [])
    (cut / rank_file(10, 1, 2)).unlink()
    assert "step 10 was written by 2 ranks, and the file of rank 1 is not there" in " ".join(notes(cut))
    (cut / rank_file(4, 0, 2)).unlink()
    (said,) = damage(cut)
    assert "step 4 was written by 2 ranks, and the file of rank 0 is not there" in said


def test_a_rank_without_a_recorder_is_named(plain_run: Path, tmp_path: Path) -> None:
    cut = cut_run(plain_run, tmp_path / "cut", 2)
    for path in cut.glob("*-of-rank-00001-*"):
        path.unlink()
    (said,) = damage(cut)
    assert "none of its 11 steps has the files of all ranks. rank 1 of 2 wrote none of them" in said


def test_a_rank_that_did_not_observe_is_named(plain_run: Path, tmp_path: Path) -> None:
    cut = cut_run(plain_run, tmp_path / "cut", 2)
    for number in range(10):
        changed(cut, number, 1, 2, loss=None)
    assert "rank 1 holds no loss at 10 of the 10 steps where other ranks do" in " ".join(notes(cut))

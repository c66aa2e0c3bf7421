"""commands/convert: any run as one in trajcheck's own format, which is analyzed to the same numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain_run_files import Outcome
from safetensors.numpy import load_file, save_file
from windowed_runs import windowed

import trajcheck
from trajcheck.commands.convert.streamed_file import rounded
from trajcheck.errors import OutputError, RunError, UsageError
from trajcheck.runs.trajectory import open_trajectory

Cli = Callable[..., Outcome]
SAMPLES = Path(__file__).parents[3] / "sample_checkpoints"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    stream = np.random.default_rng(0)
    folder = tmp_path / "archive"
    folder.mkdir()
    still = stream.normal(size=9)
    for step in (2, 10, 40):
        x: dict[str, np.ndarray] = {"a": stream.normal(size=(400, 700)).astype(np.float32), "still": still}
        x |= {"b": stream.normal(size=3), "c": stream.normal(size=(2, 3)).astype(np.float32)}
        save_file(x, folder / f"step{step}.safetensors")
    return folder


@pytest.mark.parametrize("name", ["digits-sgd-seed0", "transformer-adamw"])
def test_a_recorded_run_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    """With losses of the program that was exported with it, batches, probes, buffers and randomness."""
    done = trajcheck.convert(SAMPLES / name, tmp_path / "run")
    assert not trajcheck.verify(done.path).damaged
    asked: dict[str, Any] = {"objective": "run", "sample": ["own", "probe"], "steps": "0:12:4"}
    expected = trajcheck.analyze(SAMPLES / name, ["init"], out=tmp_path / "a", **asked)
    found = trajcheck.analyze(done.path, ["init"], out=tmp_path / "b", **asked)
    pd.testing.assert_frame_equal(found.steps, expected.steps)
    pd.testing.assert_frame_equal(found.references, expected.references)
    one, other = open_trajectory(SAMPLES / name), open_trajectory(done.path)
    assert (one.info.optimizer, one.info.groups) == (other.info.optimizer, other.info.groups)
    assert [each.groups for each in one.snapshots] == [each.groups for each in other.snapshots]


def test_an_archive(archive: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("convert", archive, tmp_path / "run").code == 0
    expected = trajcheck.analyze(archive, ["step:2"], out=tmp_path / "a")
    found = trajcheck.analyze(tmp_path / "run", ["step:2"], out=tmp_path / "b")
    pd.testing.assert_frame_equal(found.steps, expected.steps)
    pd.testing.assert_frame_equal(found.references, expected.references)
    assert set(open_trajectory(tmp_path / "run").snapshots[2].frozen) == {"still"}
    assert "param/still" not in load_file(tmp_path / "run" / "step-000000040.safetensors")


def test_rounding_is_that_of_torch() -> None:
    stream = np.random.default_rng(0)
    exact = np.concatenate([stream.normal(size=999), [0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, 1e-300, 3.4e38]])
    halfway = torch.arange(16128, 16256, dtype=torch.int16).view(torch.bfloat16).double().numpy()
    exact = np.concatenate([exact, (halfway[1:] + halfway[:-1]) / 2])
    for code, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16), ("F32", torch.float32)):
        found = torch.frombuffer(bytearray(rounded(exact, code)), dtype=dtype)
        exactly = torch.from_numpy(exact)
        narrow = exactly.float() if code == "BF16" else exactly
        torch.testing.assert_close(found, narrow.to(dtype), rtol=0, atol=0, equal_nan=True)
    # float64 just above the middle of two, which float32 takes for the middle itself
    above = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40])
    assert torch.frombuffer(bytearray(rounded(above, "BF16")), dtype=torch.bfloat16).tolist() == [1 + 2.0**-7, 1.0]


def test_bfloat16_and_fewer_steps(archive: Path, tmp_path: Path) -> None:
    done = trajcheck.convert(archive, tmp_path / "run", dtype="bfloat16", steps="5:")
    trajectory = open_trajectory(done.path)
    assert trajectory.steps == [10, 40]
    dtypes = {name: trajectory.snapshots[0].parameters[name].dtype for name in trajectory.shapes}
    assert set(dtypes.values()) == {"BF16"} and trajectory.snapshots[0].frozen["still"].dtype == "F64"
    assert done.bytes < 2 * 400 * 700 * 2 + 20_000


def test_a_conversion_goes_on(archive: Path, tmp_path: Path) -> None:
    whole = trajcheck.convert(archive, tmp_path / "whole")
    trajcheck.convert(archive, tmp_path / "run")
    (tmp_path / "run" / "step-000000010.safetensors").unlink()
    again = trajcheck.convert(archive, tmp_path / "run")
    assert (again.already, whole.already) == (2, 0)
    for file in sorted(whole.path.glob("step-*")):
        assert file.read_bytes() == (again.path / file.name).read_bytes()


def test_nothing_is_replaced(archive: Path, tmp_path: Path) -> None:
    trajcheck.convert(archive, tmp_path / "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(OutputError, match="holds another run, or this one converted otherwise"):
        trajcheck.convert(archive, tmp_path / "run", dtype="bfloat16")
    with pytest.raises(OutputError, match="holds a run already"):
        trajcheck.convert(archive, archive)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}


def test_what_is_refused(archive: Path, tmp_path: Path, cli: Cli) -> None:
    with pytest.raises(UsageError, match="expected one of float32, bfloat16, float16"):
        trajcheck.convert(archive, tmp_path / "run", dtype="int8")
    with pytest.raises(RunError, match="no step in 50:60"):
        trajcheck.convert(archive, tmp_path / "run", steps="50:60")
    (archive / "step10.safetensors").write_bytes(b"damaged")
    assert cli("convert", archive, tmp_path / "run").code == 3
    outcome = cli("convert", archive, tmp_path / "run", "--skip-bad")
    assert outcome.code == 0 and "step 10 is left out" in outcome.err
    shutil.rmtree(tmp_path / "run")


def test_windows_whose_beginning_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with windowed(tmp_path / "source", model, optimizer) as recorder:
        for _ in range(13):
            batch = torch.randn(4, 3)
            loss = model(batch).square().mean()
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    source = open_trajectory(tmp_path / "source")
    trajcheck.convert(source.path, tmp_path / "all")
    found = [each.window for each in open_trajectory(tmp_path / "all").snapshots]
    assert found == [each.window for each in source.snapshots] and any(found)
    trajcheck.convert(source.path, tmp_path / "some", steps=f"{source.steps[2]}:")
    first = open_trajectory(tmp_path / "some").snapshots[0]
    assert first.window is None and not first.window_gradient


def test_a_strangers_loss_program_is_looked_at_before_it_is_copied(tmp_path: Path, cli: Cli) -> None:
    """One of 64 GB that take no place filled the disk."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "objective.json", *(f"step-{step:09d}.safetensors" for step in range(3))):
        shutil.copy(SAMPLES / "digits-sgd-seed0" / name, run / name)
    with (run / "objective.json").open("ab") as file:
        file.truncate(64 << 30)
    outcome = cli("convert", run, tmp_path / "made")
    assert outcome.code == 0 and "the loss program is left out: " in outcome.err and "objective.json" in outcome.err
    assert "objective.json" not in [file.name for file in (tmp_path / "made").iterdir()]

"""Calls that ended with a traceback, by their smallest reproductions: refused now, or done, with a documented code."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.conftest import Outcome
from trajcheck.commands.verify.command import verify
from trajcheck.errors import RunError
from trajcheck.runs.formats.native.step_files import step_files
from trajcheck.runs.formats.native.verification import verify_run

Cli = Callable[..., Outcome]


def write(folder: Path, *, name: str = "w", scale: float = 1.0, shape: tuple[int, ...] = (2,), **metadata: Any) -> Path:
    folder.mkdir(parents=True)
    for step in range(5):
        x = np.full(shape, scale / (step + 1) * (-1) ** step)
        said = {"format": 1, "step": step, "lr": [0.1], "loss": 1.0 / (step + 1), **metadata}
        tensors = {f"param/{name}": x, f"grad/{name}": 0.5 * x}
        save_file(tensors, folder / f"step-{step:09d}.safetensors", {"trajcheck": json.dumps(said)})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that are honest, and runs that are not."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "ok")
    write(folder / "empty", shape=(0, 3))
    write(folder / "fast", lr=[1e308])
    write(folder / "large", scale=1e153, loss=1e308)
    (folder / "LOOP").symlink_to("LOOP")
    return folder


@pytest.fixture
def there(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(made)
    yield made


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["analyze", "empty", "--layers"], 3, "(w) have 0 elements"),
        (["compare", "empty", "ok"], 3, "(w) have 0 elements"),
        (["analyze", "ok", "--ref", "step:" + 29 * "9"], 3, "is not among the 5 recorded steps"),
        (["analyze", "ok", "--ref", f"step:{NINES}"], 3, "5,000 digits"),
        (["analyze", "ok", "--ref", f"mean:{NINES}"], 3, "5,000 digits"),
        (["analyze", "ok", "--ref", f"ok@mean:{NINES}"], 3, "5,000 digits"),
        (["analyze", "fast"], 0, ""),
        (["analyze", "large", "--layers"], 0, ""),
        (["compare", "large", "ok", "--layers"], 0, ""),
        (["analyze", "ok", "--objective", "LOOP:x"], 3, "cannot be opened"),
        (["analyze", "ok", "--objective", "LOOP/LOOP.py:x"], 3, "cannot be opened"),
        (["analyze", "ok", "--objective", "~nobody~/x.py:x"], 3, "x.py"),
        (["batch", "ok", "--timeout", "1000000000000d"], 2, "a year at most"),
        (["batch", "ok", "--workers", "1000000000"], 2, "--workers"),
        (["verify", "ok", "--threads", "1000000000"], 2, "--threads"),
        *(([command, "ok", "--out", ""], 2, "named ''") for command in ("analyze", "batch", "flow", "report", "table")),
        (["compare", "ok", "ok", "--out", ""], 2, "named ''"),
        *(([command, ""], 2, "named ''") for command in ("analyze", "batch", "flow", "report", "table", "verify")),
        (["batch", "ok", "--log", ""], 2, "named ''"),
    ],
    ids=lambda each: " ".join(each)[:40] if isinstance(each, list) else "",
)  # fmt: skip
def test_calls(
    words: list[str], code: int, said: str, there: Path, tmp_path: Path, cli: Cli, recwarn: pytest.WarningsRecorder
) -> None:
    out = [] if "--out" in words or words[0] == "verify" else ["--out", tmp_path / "out"]
    plots = ["--no-plots"] if words[0] in ("analyze", "compare", "batch", "flow") else []
    done = cli(*words, *out, *plots)
    assert done.code == code and said in done.err and "a bug" not in done.err, done
    assert not recwarn.list  # as numpy's, of what overflows
    for table in (tmp_path / "out").glob("*.csv"):
        with open(table, newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not {"inf", "-inf", "nan"} & {cell.lower() for cell in cells}, table


def test_a_run_that_goes_while_it_is_verified(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(there / "ok", tmp_path / "run"))
    (run / "superseded").mkdir()
    names, listed = os.listdir, []

    def gone(path: Any = ".") -> list[str]:
        listed.extend([path] if str(path) == str(run) else [])
        if len(listed) == 2:
            shutil.rmtree(run, ignore_errors=True)
        return names(path)

    monkeypatch.setattr(os, "listdir", gone)
    (damaged,) = verify(run).runs
    assert "cannot be read: No such file" in damaged.damage[0]
    with pytest.raises(RunError, match="cannot be read"):
        step_files(run)
    with ThreadPoolExecutor(1) as pool:
        assert verify_run(run, pool, lambda work: None).damage


def test_a_run_in_a_hidden_folder_has_a_row(there: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(there / "ok", tmp_path / "archive" / ".hidden")
    done = cli("batch", tmp_path / "archive", "--out", tmp_path / "out", "--no-plots")
    assert done.code == 0
    with open(tmp_path / "out" / "index.csv", newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {str(tmp_path / "archive" / ".hidden")}
    assert ".hidden" in cli("table", tmp_path / "out").out


@pytest.mark.parametrize("name", ["index.csv", "index.html", ".batch.lock", ".batch.json", "across"])
def test_an_archive_of_any_name(name: str, there: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(there / "ok", tmp_path / name)
    for _ in range(2):
        done = cli("batch", tmp_path / name, "--out", tmp_path / "out", "--no-plots")
        assert done.code == 0, done
    with open(tmp_path / "out" / "index.csv", newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {str(tmp_path / name)}


@pytest.mark.parametrize("name", ["run.json", "step-000000000.safetensors"])
def test_an_empty_file_above_the_report_is_no_run(name: str, there: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / name).touch()
    assert cli("analyze", "ok", "--out", tmp_path / "a" / "b", "--no-plots").code == 0

"""trajcheck analyze on bad input: what is said, the exit code, and that nothing is written or lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plain_run_files import SHAPES, Outcome, write_plain_step
from safetensors.numpy import load_file, save_file

Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, so that what was written by default is seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(outcome: Outcome, code: int, *words: object) -> None:
    assert outcome.code == code, outcome
    assert outcome.out == ""
    for word in words:
        assert str(word) in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    assert os.listdir(".") == []


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(run: Path, step: int, name: str, value: np.ndarray | None) -> Path:
    """Rewrite one tensor of a step file, or take it out."""
    path = run / f"step-{step:09d}.safetensors"
    tensors = load_file(path)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return write_plain_step(run, step, tensors, loss=1.0, lr=0.1)


def spoilt(shape: tuple[int, ...], value: float = np.nan) -> np.ndarray:
    array = np.ones(shape, dtype=np.float32)
    array.flat[-1] = value
    return array


def test_no_such_run(cli: Cli, tmp_path: Path) -> None:
    refused(cli("analyze", tmp_path / "nowhere"), 3, tmp_path / "nowhere", "no such run")


def test_a_folder_that_is_no_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(
        cli("analyze", tmp_path / "empty"),
        3,
        tmp_path / "empty",
        "trajcheck's own (step-000000120.safetensors, a file a step",
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.safetensors").write_bytes(b"")
    refused(cli("analyze", tmp_path / "other"), 3, "and their names say no step: weights.safetensors. Known are")


def test_an_empty_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text('{"format": 1}')
    refused(cli("analyze", tmp_path / "empty"), 3, tmp_path / "empty", "no step file")


@pytest.mark.parametrize("keep", [0, 5, 40, 500, -1])
def test_a_truncated_step_file(cli: Cli, plain_run: Path, keep: int) -> None:
    path = plain_run / "step-000000004.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(cli("analyze", plain_run), 3, path, "truncated", "--skip-bad")


def test_a_step_file_that_is_something_else(cli: Cli, plain_run: Path) -> None:
    path = plain_run / "step-000000004.safetensors"
    path.write_bytes((20).to_bytes(8, "little") + b"{} and then nonsense" * 9)
    refused(cli("analyze", plain_run), 3, path, "malformed")


@pytest.mark.parametrize("kind", ["param", "grad"])
def test_a_missing_tensor(cli: Cli, plain_run: Path, kind: str) -> None:
    path = change(plain_run, 6, f"{kind}/layer.bias", None)
    refused(cli("analyze", plain_run), 3, path, "step 6", f"{kind}/layer.bias", "[2]")


def test_a_tensor_of_another_shape(cli: Cli, plain_run: Path) -> None:
    path = change(plain_run, 6, "param/layer.bias", np.zeros(3, dtype=np.float32))
    refused(cli("analyze", plain_run), 3, path, "step 6", "param/layer.bias", "[3]", "expected [2]")


def test_a_step_with_a_tensor_more(cli: Cli, plain_run: Path) -> None:
    path = change(plain_run, 6, "param/head", np.zeros(3, dtype=np.float32))
    refused(cli("analyze", plain_run), 3, path, "step 6", "param/head")


@pytest.mark.parametrize("name", ["param/layer.weight", "grad/layer.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_in_the_middle(cli: Cli, plain_run: Path, name: str, value: float) -> None:
    path = change(plain_run, 5, name, spoilt(SHAPES[name.partition("/")[2]], value))
    refused(cli("analyze", plain_run), 3, path, "step 5", name, "--skip-bad")


def test_skip_bad_leaves_out_and_lists(cli: Cli, plain_run: Path, elsewhere: Path) -> None:
    change(plain_run, 5, "param/layer.weight", spoilt((3, 2)))
    (plain_run / "step-000000008.safetensors").write_bytes(b"short")
    outcome = cli("analyze", plain_run, "--skip-bad", "--out", "report")
    assert outcome.code == 0, outcome
    report = pd.read_csv("report/steps.csv")
    assert report["step"].tolist() == [0, 1, 2, 3, 4, 6, 7, 9, 10]
    assert report["stride"].tolist()[1:] == [1, 1, 1, 1, 2, 1, 2, 1]
    assert report.loc[report["step"] == 6, "step_norm"].isna().all()  # not a chord of one step
    text = (elsewhere / "report" / "summary.json").read_text()
    assert '"5": "step 5, tensor param/layer.weight' in text and "000000008" in text
    assert "2 steps were left out" in outcome.out


@pytest.mark.parametrize("name", ["param/layer.weight", "grad/layer.weight"])
def test_a_run_that_ends_in_nan_is_analyzed_up_to_there(cli: Cli, plain_run: Path, name: str) -> None:
    for step in (8, 9, 10):
        path = plain_run / f"step-{step:09d}.safetensors"
        tensors = load_file(path)
        if name in tensors:
            tensors[name] = spoilt((3, 2))
        if step > 8:
            tensors["param/layer.weight"] = spoilt((3, 2))
        write_plain_step(plain_run, step, tensors, loss=0.5, lr=0.1)
    outcome = cli("analyze", plain_run, "--out", "report", "--ref", "final", "--ref", "init")
    assert outcome.code == 4
    assert "ends in NaN or Inf" in outcome.err and "step 8" in outcome.err
    rows = pd.read_csv("report/references.csv")
    last = 7 if name.startswith("param") else 8  # at step 8 the parameters are finite, the gradient is not
    assert rows["step"].max() == last
    final = rows[(rows["ref"] == "final") & (rows["step"] == last)]
    assert final["ref_dist"].tolist() == [0.0]


def test_a_run_without_a_finite_step(cli: Cli, plain_run: Path) -> None:
    for step in range(11):
        tensors = load_file(plain_run / f"step-{step:09d}.safetensors")
        tensors["param/layer.weight"] = spoilt((3, 2))
        write_plain_step(plain_run, step, tensors)
    refused(cli("analyze", plain_run), 3, plain_run, "no step holds finite parameters")


def test_a_reference_of_another_model(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    tensors = {"param/layer.weight": np.ones((5, 2), np.float32), "param/head": np.ones(1, np.float32)}
    write_plain_step(other, 0, tensors)
    refused(
        cli("analyze", plain_run, "--ref", other), 3,
        other, "layer.bias", "layer.weight [5, 2] instead of [3, 2]", "head",
    )  # fmt: skip


def test_a_reference_file_of_another_model(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "point.safetensors"
    save_file({"layer.weight": np.ones((3, 2), np.float32)}, file)
    refused(cli("analyze", plain_run, "--ref", file), 3, file, "layer.bias")


@pytest.mark.parametrize("spec", ["nowhere", "finel", "step:", "step:x", "mean:0", "mean:12", "step:77", "a@final"])
def test_an_unknown_reference(cli: Cli, plain_run: Path, spec: str) -> None:
    refused(cli("analyze", plain_run, "--ref", spec), 3, spec)


def test_best_without_losses(cli: Cli, plain_run: Path) -> None:
    for step in range(11):
        write_plain_step(plain_run, step, load_file(plain_run / f"step-{step:09d}.safetensors"))
    refused(cli("analyze", plain_run, "--ref", "best"), 3, "best", "no step", "loss")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raising", ["KeyError", "labels", "step 0"]),
        ("vector", ["scalar", "(2,)", "step 0"]),
        ("other", ["layer.weight", "weight"]),
        ("missing", ["missing"]),
    ],
)
def test_an_objective_that_cannot_be_used(
    cli: Cli, plain_run: Path, objective_file: Path, name: str, words: list[str]
) -> None:
    refused(cli("analyze", plain_run, "--objective", f"{objective_file}:{name}"), 3, objective_file.name, *words)


def test_an_objective_that_is_infinite_leaves_cells_empty(cli: Cli, plain_run: Path, objective_file: Path) -> None:
    outcome = cli("analyze", plain_run, "--objective", f"{objective_file}:infinite", "--out", "report")
    assert outcome.code == 4, outcome
    reasons = pd.read_csv("report/undefined.csv")
    assert "not finite" in reasons.loc[reasons["column"] == "grad_norm", "reason"].iloc[0]


def test_an_objective_without_batches_to_replay(cli: Cli, plain_run: Path, objective_file: Path) -> None:
    for step in range(11):
        tensors = load_file(plain_run / f"step-{step:09d}.safetensors")
        write_plain_step(plain_run, step, {name: t for name, t in tensors.items() if not name.startswith("batch")})
    outcome = cli("analyze", plain_run, "--objective", f"{objective_file}:good", "--out", "report")
    assert outcome.code == 4 and "no batch was recorded" in outcome.err


def test_an_unwritable_report_folder(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    refused(cli("analyze", plain_run, "--out", tmp_path / "file" / "report"), 5, tmp_path / "file", "--out")
    refused(cli("analyze", plain_run, "--out", tmp_path / "file"), 5, "not a folder")
    assert (tmp_path / "file").read_text() == "kept"


def test_other_peoples_folders_are_never_overwritten(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "steps.csv").write_text("mine")
    refused(cli("analyze", plain_run, "--out", thesis), 5, thesis, "steps.csv")
    assert contents(thesis) == {"steps.csv": b"mine"}
    before = contents(plain_run)
    refused(cli("analyze", plain_run, "--out", plain_run), 5, "runs are never written to")
    assert contents(plain_run) == before


def test_the_report_of_another_run_is_never_overwritten(cli: Cli, plain_run: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert cli("analyze", plain_run, "--out", report).code == 0
    before = contents(report)
    change(plain_run, 0, "param/layer.bias", np.ones(2, np.float32))  # without run.json, the first step is the identity
    refused(cli("analyze", plain_run, "--out", report), 5, "another run")
    assert contents(report) == before


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--steps", "1"], "A:B:C"),
        (["--steps", "::0"], "A:B:C"),
        (["--steps", "-3:"], "A:B:C"),
        (["--metrics", "curvature"], "curvature"),
        (["--sample", "ours"], "own, previous, probe, full"),
        (["--sample", "probe"], "--objective"),
        (["--group", "("], "--group"),
        (["--path-integral", "0"], "--path-integral"),
        (["--memory-lags", "1,x"], "--memory-lags"),
        (["--memory-lags", "0"], "--memory-lags"),
        (["--smoothing", "0"], "--smoothing"),
        (["--convention", "mine"], "tzc-v1"),
        (["--memory", "much"], "--memory"),
        (["--memory-lags", "1", "--sample", "probe", "--objective", "x.py:y"], "--sample own"),
        (["--group", "nosuch"], "layer.bias"),
        (["--threads", "0"], "--threads"),
        (["--convention", "tzc-v1"], "--objective"),
        (["--skip", "0"], "--skip"),
        (["--ref-gradients"], "--objective"),
        (["--replay-dtype", "float64"], "--objective"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_options_that_make_no_sense(cli: Cli, plain_run: Path, options: list[str], word: str) -> None:
    refused(cli("analyze", plain_run, *options), 2, word)


def test_steps_that_were_not_recorded(cli: Cli, plain_run: Path) -> None:
    refused(cli("analyze", plain_run, "--steps", "100:"), 3, "--steps 100::1", "0 to 10")


def test_an_unknown_replay_dtype_or_device(cli: Cli, plain_run: Path, objective_file: Path) -> None:
    objective = f"{objective_file}:good"
    refused(cli("analyze", plain_run, "--objective", objective, "--replay-dtype", "float8"), 2, "float8", "float64")
    refused(cli("analyze", plain_run, "--objective", objective, "--device", "abacus"), 2, "abacus")


def test_metrics_that_need_an_objective_exit_with_4(cli: Cli, plain_run: Path) -> None:
    outcome = cli("analyze", plain_run, "--metrics", "smoothness", "--out", "report")
    assert outcome.code == 4 and "--metrics smoothness" in outcome.err

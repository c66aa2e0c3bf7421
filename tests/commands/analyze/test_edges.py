"""trajcheck.analyze at the edges: unusual runs, references and folders that must come out right or be refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from counted import estimate
from plain_run_files import Outcome, write_plain_step
from remains import DEAD, temporary_of
from safetensors.numpy import load_file, save_file
from torch import nn

import trajcheck
from trajcheck import Recorder
from trajcheck.measuring.options import Options
from trajcheck.objective.objective import Objective

Cli = Callable[..., Outcome]


def step_path(run: Path, step: int) -> Path:
    return run / f"step-{step:09d}.safetensors"


def rewrite(run: Path, step: int, **metadata: object) -> None:
    write_plain_step(run, step, load_file(step_path(run, step)), **metadata)


def towards(report: trajcheck.Report, ref: object) -> pd.DataFrame:
    return report.references[report.references["ref"] == str(ref)]


# -- references that are iterates of the run under another name -------------------------------------------------------


def test_the_runs_own_iterates_are_known_under_any_name(plain_run: Path, tmp_path: Path) -> None:
    """x_T of a copy of the run, or in one of its step files, depends on the samples just as `final` does."""
    copy = shutil.copytree(plain_run, tmp_path / "copy")
    weights = {name[6:]: value for name, value in load_file(step_path(plain_run, 10)).items()}
    save_file(weights, tmp_path / "exported.safetensors")
    refs = ["final", str(plain_run), str(copy), str(step_path(plain_run, 10)), str(tmp_path / "exported.safetensors")]
    report = trajcheck.analyze(plain_run, refs, out=tmp_path / "report", skip=1)
    values = report.summary["headline"]["references"]
    for ref in refs:
        assert values[ref]["dependence"] == {"whole": 10, "free": 10, "found": ""}
        np.testing.assert_array_equal(towards(report, ref)["cos_skip"], towards(report, "final")["cos_skip"])


def test_another_point_of_the_same_id_is_of_a_run_that_shares_iterates(plain_run: Path, tmp_path: Path) -> None:
    fork = shutil.copytree(plain_run, tmp_path / "fork")  # the same first step, and so the same id
    last = load_file(step_path(fork, 10))
    write_plain_step(fork, 10, {name: value + 1 for name, value in last.items()})
    report = trajcheck.analyze(plain_run, [str(fork)], out=tmp_path / "report")
    values = report.summary["headline"]["references"][str(fork)]
    assert values["cosine"] is None  # the steps of both were made of the same batches
    assert "shares the iterate of step 9" in values["cosine_missing"] and "--sample probe" in values["cosine_missing"]


def test_a_reference_that_is_not_finite_is_named(plain_run: Path, cli: Cli) -> None:
    tensors = load_file(step_path(plain_run, 4))
    tensors["param/layer.bias"][1] = np.inf
    write_plain_step(plain_run, 4, tensors)
    for ref in ("step:4", "mean:8"):
        outcome = cli("analyze", plain_run, "--ref", ref, "--steps", ":2")
        assert outcome.code == 3 and ref in outcome.err and "layer.bias" in outcome.err


def test_a_run_may_be_called_like_a_file_or_a_point(plain_run: Path, tmp_path: Path) -> None:
    for name in ("d.safetensors", "a@b"):
        other = shutil.copytree(plain_run, tmp_path / name)
        rewrite(other, 0, loss=9.0)  # another id
        report = trajcheck.analyze(plain_run, [str(other), f"{other}@step:3"], out=tmp_path / "report")
        assert towards(report, f"{other}@step:3")["ref_dist"].iloc[3] == 0


# -- frozen parameters, skipped steps, masters, strides ---------------------------------------------------------------


def test_a_resumed_run_may_have_frozen_other_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frozen, head = nn.Linear(3, 4), nn.Linear(4, 1)
    model = nn.Sequential(frozen, head)
    frozen.requires_grad_(False)
    batches = torch.randn(8, 5, 3)

    def train(steps: range, start: int = 0) -> None:
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        with Recorder(tmp_path / "run", model, optimizer, every=1, start_step=start, quiet=True, strict=True) as r:
            for step in steps:
                loss = model(batches[step]).square().mean()
                loss.backward()
                r.observe(batches[step], loss)
                optimizer.step()
                optimizer.zero_grad()

    train(range(4))
    with torch.no_grad():
        frozen.weight.mul_(1.5)
    with pytest.warns(
        RuntimeWarning, match=r"changed frozen parameters between the job before and this one.*0\.weight"
    ):
        train(range(4, 8), start=4)
    objective = tmp_path / "objective.py"
    objective.write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), lambda model, x: model(x).square().mean()\n"
    )
    report = trajcheck.analyze(tmp_path / "run", objective=f"{objective}:make", out=tmp_path / "report")
    assert report.steps["replay_grad_error"].notna().sum() == 8
    assert report.steps["replay_grad_error"].max() < 1e-5


def describe_sgd(run: Path, **group: object) -> None:
    text = {"format": 1, "id": "sgd", "optimizer": {"name": "SGD", "groups": [{"lr": 0.1, "momentum": 0, **group}]}}
    (run / "run.json").write_text(json.dumps(text))


def test_skipped_steps_are_no_part_of_the_noise_floor(plain_run: Path, tmp_path: Path) -> None:
    describe_sgd(plain_run)
    for step in range(3, 9):
        tensors = load_file(step_path(plain_run, step))
        tensors["grad/layer.bias"][:] = np.inf
        write_plain_step(plain_run, step, tensors, lr=0.1, skipped=True)
    rows = towards(trajcheck.analyze(plain_run, out=tmp_path / "report"), "final").set_index("step")
    assert rows.loc[0, "cos_floor"] == pytest.approx(1 / np.sqrt(4))  # updates 0, 1, 2 and 9
    assert rows.loc[3:8, ["cos_floor", "cos", "rsi"]].isna().all(axis=None)


def test_the_inf_of_a_skipped_step_is_not_bad(plain_run: Path, tmp_path: Path) -> None:
    """Neither in the middle nor at the end of a run: its gradient was never used."""
    for step in (4, 9):
        tensors = load_file(step_path(plain_run, step))
        tensors["grad/layer.bias"][:] = np.inf
        write_plain_step(plain_run, step, tensors, lr=0.1, skipped=True)
    step_path(plain_run, 10).unlink()
    report = trajcheck.analyze(plain_run, skip_bad=True, out=tmp_path / "report")
    assert report.steps["step"].tolist() == list(range(10))
    assert not report.incomplete and not report.summary["left_out"]["steps"]


def test_the_chord_to_the_closing_iterate_does_not_set_the_stride(plain_run: Path, tmp_path: Path) -> None:
    for step in (1, 2, 4, 5, 7, 8):
        step_path(plain_run, step).unlink()
    steps = trajcheck.analyze(plain_run, out=tmp_path / "report").steps.set_index("step")
    assert steps["stride"].dropna().tolist() == [3, 3, 3, 1]
    assert steps["step_norm"].notna().tolist() == [False, True, True, True, False]
    assert steps["weight"].tolist() == [2, 3, 3, 2, 0]  # of steps 0 to 9; the last iterate has no sample


def test_masters_are_the_iterates_and_low_precision_batches_are_replayed(
    plain_run: Path, objective_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    plain = trajcheck.analyze(plain_run, ["init"], out=tmp_path / "plain")
    for step in range(11):
        path = step_path(plain_run, step)
        tensors = load_torch(path)
        for name in ("layer.weight", "layer.bias"):
            tensors[f"master/{name}"] = tensors[f"param/{name}"]
            tensors[f"param/{name}"] = tensors[f"param/{name}"].bfloat16()
        if "batch/0" in tensors:
            tensors["batch/0"] = tensors["batch/0"].bfloat16()
        save_torch(tensors, path, {"trajcheck": json.dumps({"format": 1, "step": step})})
    report = trajcheck.analyze(plain_run, ["init"], f"{objective_file}:good", out=tmp_path / "report")
    np.testing.assert_array_equal(report.references["ref_dist"], plain.references["ref_dist"])
    assert report.summary["replay"]["dtype"] == "float64"
    assert report.steps["inst_gap"].notna().sum() == 9


# -- metadata and files that cannot be believed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {"loss": 10**400}, {"lr": 10**400}, {"lr": "fast"}, {"lr": [0.1, None]}, {"tau": float("inf")},
        {"clip": float("inf")}, {"clip": float("nan")}, {"clip": -1.0}, {"skipped": "false"},
        {"micro_batches": 10**30}, {"micro_batches": 2, "micro_weights": [1.0]}, {"batch_from": -1},
    ],
)  # fmt: skip
def test_metadata_that_mean_nothing_are_refused(plain_run: Path, cli: Cli, metadata: dict[str, object]) -> None:
    rewrite(plain_run, 3, **metadata)
    outcome = cli("analyze", plain_run, "--out", plain_run.parent / "report")
    assert outcome.code == 3 and "step-000000003" in outcome.err, outcome
    assert cli("analyze", plain_run, "--skip-bad", "--out", plain_run.parent / "report").code == 0


@pytest.mark.parametrize("state", [np.zeros(()), np.zeros(0, np.uint8), np.zeros((1, 16))])
def test_generator_states_that_are_none_are_refused(plain_run: Path, cli: Cli, state: np.ndarray) -> None:
    write_plain_step(plain_run, 3, {**load_file(step_path(plain_run, 3)), "rng/cpu": state})
    outcome = cli("analyze", plain_run, "--out", plain_run.parent / "report")
    assert outcome.code == 3 and "rng/cpu" in outcome.err


def test_two_files_of_one_step_are_refused(plain_run: Path, cli: Cli) -> None:
    shutil.copy(step_path(plain_run, 3), plain_run / "step-3.safetensors")
    outcome = cli("analyze", plain_run, "--out", plain_run.parent / "report")
    assert outcome.code == 3 and "both step 3" in outcome.err


def test_a_loss_that_was_not_finite_is_none(plain_run: Path, tmp_path: Path) -> None:
    rewrite(plain_run, 3, loss=float("nan"))
    report = trajcheck.analyze(plain_run, ["best"], out=tmp_path / "report")
    assert report.steps["loss"].isna().tolist() == [step in (3, 10) for step in range(11)]


# -- where reports go -------------------------------------------------------------------------------------------------


def test_nothing_is_written_into_a_run(plain_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(plain_run.rglob("*"))
    monkeypatch.chdir(plain_run)
    for arguments in (["."], [".", "--out", "rep"], [plain_run, "--out", plain_run / "superseded" / "rep"]):
        outcome = cli("analyze", *arguments)
        assert outcome.code == 5 and "never written to" in outcome.err
    assert sorted(plain_run.rglob("*")) == before


def test_a_symbolic_link_keeps_its_name_in_the_default_folder(
    plain_run: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "runs").mkdir(parents=True)
    (here / "runs" / "mine").symlink_to(plain_run)
    monkeypatch.chdir(here)
    assert cli("analyze", "runs/mine", "-q").code == 0
    assert (here / "reports" / "runs" / "mine" / "steps.csv").exists()


def test_reports_of_nested_runs_nest(plain_run: Path, tmp_path: Path) -> None:
    assert trajcheck.analyze(plain_run, out=tmp_path / "reports" / "n" / "deep").folder.exists()
    assert trajcheck.analyze(plain_run, out=tmp_path / "reports" / "n").folder.exists()


def test_what_a_killed_analysis_left_is_removed(plain_run: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    dead, alive = (report / temporary_of(pid, "work") for pid in (DEAD, os.getppid()))
    for remains in (dead, alive):
        remains.mkdir(parents=True)
        (remains / "mean.safetensors").write_bytes(b"x")
    trajcheck.analyze(plain_run, out=report)
    assert not dead.exists() and alive.exists()


def test_a_full_disk_is_an_output_error(plain_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    report = plain_run.parent / "report"
    outcome = cli("analyze", plain_run, "--out", report)
    assert outcome.code == 5 and "No space left" in outcome.err
    assert not report.exists()


# -- what is asked for, and what it costs -----------------------------------------------------------------------------


def test_geometry_alone_needs_no_gradients(plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = trajcheck.analyze(plain_run, metrics=["geometry"], out=tmp_path / "report")
    assert "grad_norm" not in report.steps
    assert {"param_norm", "step_norm", "init_dist", "path_length", "update_cos"} <= set(report.steps)


def test_reference_gradients_need_a_use(plain_run: Path, objective_file: Path, cli: Cli) -> None:
    arguments = ("analyze", plain_run, "--objective", f"{objective_file}:good", "--ref-gradients")
    assert cli(*arguments, "--metrics", "secant").code == 2


def test_a_loss_that_is_nan_at_a_reference_only(plain_run: Path, tmp_path: Path, objective_file: Path) -> None:
    far = {name[6:]: value * 0 + 1e30 for name, value in load_file(step_path(plain_run, 10)).items()}
    save_file({name: value.astype(np.float32) for name, value in far.items()}, tmp_path / "far.safetensors")
    ref = str(tmp_path / "far.safetensors")
    options: dict[str, Any] = {"objective": f"{objective_file}:good", "replay_dtype": "float32"}  # where 1e30^2 is inf
    report = trajcheck.analyze(plain_run, ["final", ref], **options, out=tmp_path / "report")
    assert any(ref in lack for lack in report.incomplete)
    assert towards(report, ref)["rsi"].notna().sum() == 10
    assert towards(report, "final")["inst_gap"].notna().sum() == 10


@pytest.mark.parametrize("steps", [None, "::3"])
@pytest.mark.parametrize("ref_gradients", [False, True])
@pytest.mark.parametrize("skip", [1, 4])
def test_a_dry_run_says_what_will_be_read_and_evaluated(
    plain_run: Path,
    objective_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: str | None,
    ref_gradients: bool,
    skip: int,
    bytes_read: list[int],
) -> None:
    refs = ("final", "init", "step:4", "step:5")
    sample = ("own", "previous") if skip == 1 else ("previous",)
    points = 2 if skip == 1 else None
    options = Options(
        refs,
        f"{objective_file}:good",
        ref_gradients=ref_gradients,
        steps=steps,
        skip=skip,
        sample=sample,
        path_integral=points,
    )
    cost = estimate(plain_run, options)
    bytes_read.clear()
    losses: list[object] = []
    gradients: list[object] = []
    loss, both = Objective.loss, Objective.loss_and_gradient

    def counted(function: Callable[..., object], count: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            count(arguments)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(Objective, "loss", counted(loss, losses.append))
    monkeypatch.setattr(Objective, "loss_and_gradient", counted(both, gradients.append))
    trajcheck.analyze(
        plain_run,
        refs,
        options.objective,
        ref_gradients=ref_gradients,
        steps=steps,
        skip=skip,
        sample=sample,
        path_integral=points,
        out=tmp_path / "report",
    )
    assert (cost.losses, cost.gradients) == (len(losses), len(gradients))
    checks = sum(bytes_read) - cost.stored_bytes - cost.replay_bytes
    assert 0 <= checks <= 8 * 32 * 2  # besides: is the end finite, are the references


def test_the_table_fits_80_columns_whatever_the_names(plain_run: Path, cli: Cli, tmp_path: Path) -> None:
    other = shutil.copytree(plain_run, tmp_path / ("a-long-name-" * 12))
    report = tmp_path / "r"
    outcome = cli("analyze", plain_run, "--ref", other, "--ref", "final", "--out", report)
    assert outcome.code == 0
    table = outcome.out.split("\n\n")[1]
    assert all(len(line) <= 80 for line in table.splitlines()), table

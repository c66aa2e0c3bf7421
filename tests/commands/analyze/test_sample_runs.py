"""trajcheck.analyze on sample_checkpoints: what must hold on real recorded runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from dense import Nearest
from places import SAMPLES

import trajcheck
from trajcheck import Report

pytestmark = pytest.mark.usefixtures("two_precisions")

Analyzed = Callable[..., Report]
RUNS = {
    "digits-sgd-seed0": "digits",
    "digits-sgd-seed1": "digits",
    "breast-cancer-gd": "breast_cancer",
    "transformer-adamw": "transformer",
}

REFS = {run: ["final", "init"] for run in RUNS} | {"breast-cancer-gd": ["final", "init", "step:75", "mean:10"]}


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Analyzed:
    """The report of a run, its losses and gradients computed in a dtype; made once."""

    @cache
    def made(run: str, dtype: str | None = None) -> Report:
        objective = f"{SAMPLES / 'objectives.py'}:{RUNS[run]}"
        folder = tmp_path_factory.mktemp("reports") / "report"
        return trajcheck.analyze(SAMPLES / run, REFS[run], objective, out=folder, replay_dtype=dtype)

    return made


def towards(report: Report, ref: str) -> pd.DataFrame:
    rows = report.references
    return rows[rows["ref"] == ref]


@pytest.mark.parametrize("run", RUNS)
def test_the_replay_is_the_training(run: str, analyzed: Analyzed) -> None:
    """Recorded and replayed losses and gradients agree to rounding: with dropout, the recorded masks return."""
    report = analyzed(run)
    recorded_by = json.loads((SAMPLES / run / "run.json").read_text())["versions"]["torch"]
    if run == "transformer-adamw" and recorded_by != torch.__version__:  # its dropout masks need not return there
        assert report.steps["replay_loss_error"].max() < 0.2
        return
    assert report.steps["replay_loss_error"].max() < 1e-5
    assert report.steps["replay_grad_error"].max() < 1e-5
    assert report.steps["replay_grad_error"].notna().sum() >= len(report.steps) - 1
    assert not [warning for warning in report.summary["warnings"] if "replay" in warning]


@pytest.mark.parametrize("run", ["digits-sgd-seed0", "breast-cancer-gd"])
def test_the_last_step_of_plain_sgd_leads_to_the_final_iterate(run: str, analyzed: Analyzed) -> None:
    """x* = x_{t+1} = x_t - eta g_t: cos = 1 and rsi = eb = 1 / eta."""
    report = analyzed(run)
    row, rate = towards(report, "final").iloc[-2], report.steps["lr"].iloc[-2]
    tolerance = 1e-9 if run == "breast-cancer-gd" else 1e-5  # float32: x_{t+1} was rounded
    assert row["cos"] == pytest.approx(1, rel=tolerance)
    assert row["rsi"] == pytest.approx(1 / rate, rel=tolerance)
    assert row["eb"] == pytest.approx(1 / rate, rel=tolerance)
    assert row["cos_floor"] == 1


def test_logistic_regression_is_convex(analyzed: Analyzed) -> None:
    report = analyzed("breast-cancer-gd")
    for table in [report.steps, *(towards(report, ref) for ref in REFS["breast-cancer-gd"])]:
        assert (table["inst_gap"].dropna() <= 1e-12).all()
        resolved = table[table["convexity_ratio"].notna() & (table["convexity_den"] > 0)]
        assert (resolved["convexity_ratio"] >= 1).all()
    assert (towards(report, "final")["convexity_den"].iloc[5:-1] > 0).all()
    shares = report.summary["headline"]["references"]["final"]["shares"]
    assert shares["not_convex"] == 0


@pytest.mark.parametrize("run", ["digits-sgd-seed0", "breast-cancer-gd", "transformer-adamw"])
def test_loss_change_less_update_corr_is_the_gap(run: str, analyzed: Analyzed) -> None:
    table = analyzed(run, "float64").steps
    steps, last = table.dropna(subset="inst_gap"), int(table["step"].iloc[-1])
    difference = steps["loss_change_sum"].iloc[-1] - steps["update_corr_sum"].iloc[-1]
    middles = (steps["step"] - steps["stride"] / 2).tolist()
    gaps = np.dot(Nearest(middles, [i + 0.5 for i in range(last - 1)])(np.ones(len(steps))), steps["inst_gap"])
    assert difference == pytest.approx(gaps, rel=1e-9)


def test_float64_replay_resolves_what_float32_does_not(analyzed: Analyzed) -> None:
    """Where the float32 gap is resolved its sign is that of the float64 gap."""
    narrow = analyzed("digits-sgd-seed0", "float32").references
    wide = analyzed("digits-sgd-seed0", "float64").references
    resolved = narrow["inst_gap"].abs() > narrow["gap_resolution"]
    assert resolved.sum() > 200
    assert (np.sign(narrow["inst_gap"][resolved]) == np.sign(wide["inst_gap"][resolved])).all()
    error = (narrow["inst_gap"] - wide["inst_gap"]).abs()
    assert (error.dropna() <= narrow["gap_resolution"].dropna()).all()


def test_what_adam_promises_nothing_for_is_left_out(analyzed: Analyzed) -> None:
    report = analyzed("transformer-adamw")
    assert not {"lo_lr", "cos_floor"} & set(report.references.columns)
    reasons = report.undefined.groupby("column")["reason"].agg(" ".join)
    assert "nothing for AdamW" in reasons["lo_lr"] and "plain SGD" in reasons["cos_floor"]
    assert report.summary["run"]["skip"] == 50

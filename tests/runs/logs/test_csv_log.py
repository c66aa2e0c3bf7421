"""A CSV that the user names: what is read of it, what is refused by line and column, and what a run then has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import Record
from handwritten import write_run

import trajcheck
from trajcheck.commands.batch.run_state import fingerprint
from trajcheck.errors import RunError, UsageError
from trajcheck.measuring.options import Options
from trajcheck.runs.logs.csv_log import read_csv_log
from trajcheck.runs.logs.log_choice import LogChoice
from trajcheck.runs.logs.run_log import AT_STEP, MEAN, RunLog


def log(folder: Path, text: str, **columns: object) -> LogChoice:
    (folder / "log.csv").write_text(text)
    return LogChoice(str(folder / "log.csv"), **columns)  # type: ignore[arg-type]


def test_rows_of_one_step_complete_each_other(tmp_path: Path) -> None:
    text = "\ufeffname, step ,lr-a,lr-b,loss\nx,0,0.1,0.2,\n\ny,0,,,2.5\nz,3,0.1,,nan\n w ,1.0,0.3,0.4,1e-3\n"
    found = read_csv_log(log(tmp_path, text, loss="loss", lr=("lr-a", "lr-b")))
    assert found.lr == {0: (0.1, 0.2), 1: (0.3, 0.4)}  # of step 3 one is not known
    assert found.loss == {0: 2.5, 1: 1e-3} and found.loss_kind == AT_STEP
    tabs = read_csv_log(log(tmp_path, "t\tlr\n4\t0.5\n", step="t", lr=("lr",)))
    assert tabs.lr == {4: (0.5,)} and not tabs.loss


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column step; its columns are none"),
        ("step,rate\n", "has no column lr; its columns are step, rate"),
        ("step,lr,lr\n", "has several columns lr"),
        ("step,lr\n1.5,0.1\n", "line 2, column step: 1.5 is no number of a step"),
        ("step,lr\n,0.1\n", "line 2, column step: a blank is no number of a step"),
        ("step,lr\n-1,0.1\n", "line 2, column step: -1 is no number"),
        ("step,lr\n1e300,0.1\n", "line 2, column step: 1e300 is no number"),
        ("step,lr\ninf,0.1\n", "line 2, column step: inf is no number of a step"),
        ("step,lr\n0,fast\n", "line 2, column lr: fast is no number"),
        ("step,lr\n0,-0.1\n", "line 2, column lr: -0.1 is no learning rate"),
        ("step,lr\n0,nan\n", "line 2, column lr: nan is no learning rate"),
        (
            "step,lr\n0,0.1\n1,0.1\n0,0.2\n",
            r"line 4: step 0 has lr 0\.2 here, and 0\.1 before\. Where a job",
        ),
        (f"step,lr\n0,{'1' * 200_000}\n", "is no CSV: field larger"),
    ],
)
def test_what_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=words):
        read_csv_log(log(tmp_path, text, lr=("lr",)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read: No such file"):
        read_csv_log(LogChoice(str(tmp_path / "none.csv"), lr=("lr",)))
    (tmp_path / "bytes.csv").write_bytes(b"step,lr\n\xff\xfe")
    with pytest.raises(RunError, match="is no text in UTF-8"):
        read_csv_log(LogChoice(str(tmp_path / "bytes.csv"), lr=("lr",)))


def thinned(folder: Path, name: str) -> Path:
    """Records of every fifth step, of parameters alone."""
    return write_run(folder / name, [Record(t, np.ones(2) * (t + 1)) for t in range(0, 21, 5)])


def rates(steps: int) -> list[float]:
    return [0.1 / (1 + t) for t in range(steps)]


def test_an_analysis_with_a_log(tmp_path: Path) -> None:
    run = thinned(tmp_path, "run")
    lines = [f"{t},{rate!r},{3 - t / 10!r}" for t, rate in enumerate(rates(20))]
    (run / "log.csv").write_text("\n".join(["t,rate,f", *lines]))
    named: dict[str, Any] = {"log": "{run}/log.csv", "log_step": "t", "log_loss": "f", "log_lr": "rate", "quiet": True}
    report = trajcheck.analyze(run, ["best"], out=tmp_path / "report", **named)
    np.testing.assert_allclose(report.steps["tau"], [sum(rates(t)) for t in range(0, 21, 5)], rtol=1e-14)
    np.testing.assert_allclose(report.steps["lr"][:4], [rates(20)[t] for t in range(0, 20, 5)], rtol=0)
    np.testing.assert_allclose(report.steps["loss"][:4], [3 - t / 10 for t in range(0, 20, 5)], rtol=0)
    assert "step:15" in json.dumps(report.summary) or report.references["dist"].iloc[3] == 0
    assert list(report.summary["options"]["log_lr"]) == ["rate"]
    (tmp_path / "gap.csv").write_text("\n".join(["t,rate", *[x.rpartition(",")[0] for x in lines if x[:2] != "7,"]]))
    gap = trajcheck.analyze(run, out=tmp_path / "gap", log=str(tmp_path / "gap.csv"), log_step="t", log_lr="rate")
    assert gap.steps["tau"].notna().tolist() == [True, True, False, False, False]
    assert "the learning rate of step 7 is not known" in set(gap.undefined["reason"])


def test_losses_that_contradict_the_recorded_ones_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Record(t, np.ones(2) * t, loss=4.0 - t) for t in range(3)])
    for losses, told in (((4.001, 3.0, 2.0), False), ((5, 4, 2), True)):
        (run / "log.csv").write_text("\n".join(["step,f", *[f"{t},{loss}" for t, loss in enumerate(losses)]]))
        report = trajcheck.analyze(run, log=str(run / "log.csv"), log_loss="f", out=tmp_path / "report")
        words = "others than the recorded ones at 2 of 3 steps, most at step 0: 5 there, 4 recorded, which is taken"
        assert any(words in each for each in report.summary["warnings"]) == told
        assert report.steps["loss"].tolist() == [4, 3, 2]


def test_a_log_comes_before_that_of_the_format() -> None:
    mean = RunLog("state.json", {0: (0.1,)}, {0: 2.0}, MEAN, ("state.json",))
    both = RunLog("log.csv", loss={0: 3.0}, files=("log.csv",)).before(mean)
    assert both == RunLog("log.csv, state.json", {0: (0.1,)}, {0: 3.0}, AT_STEP, ("log.csv", "state.json"))
    assert RunLog("log.csv", {0: (0.2,)}).before(mean).loss_kind == MEAN
    assert mean.before(both) is mean and both.before(None) is both


def test_comparisons_and_flows_by_logged_times(tmp_path: Path) -> None:
    runs = [thinned(tmp_path, name) for name in ("a", "b")]
    for number, run in enumerate(runs):
        lines = [f"{t},{rate / (number + 1)!r}" for t, rate in enumerate([0.1] * 20)]
        (run / "log.csv").write_text("\n".join(["step,lr", *lines]))
    found = trajcheck.compare(*runs, align="time", log="{run}/log.csv", log_lr="lr", out=tmp_path / "report").pairs
    assert list(found["step_a"]) == [0, 5, 10] and list(found["step_b"]) == [0, 10, 20]
    with pytest.raises(UsageError, match=r"--log log\.csv is one file, and 2 runs are read: write \{run\}"):
        trajcheck.compare(*runs, log="log.csv", log_lr="lr")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"log": "a.csv"}, "gives nothing without a column"),
        ({"log_lr": ("lr",)}, "--log-lr lr names a column of a log: give --log"),
        ({"log_loss": "f"}, "--log-loss f names a column"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Options(**options).check()  # type: ignore[arg-type]


def test_a_report_is_out_of_date_when_its_log_has_changed(tmp_path: Path) -> None:
    run, options = thinned(tmp_path, "run"), Options(log="{run}/log.csv", log_lr=("lr",))
    (run / "log.csv").write_text("step,lr\n0,0.1\n")
    first = fingerprint(run, options)
    (run / "log.csv").write_text("step,lr\n0,0.1\n1,0.1\n")
    assert fingerprint(run, options) != first

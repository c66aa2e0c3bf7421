"""Runs that cannot be compared, and options that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import Record
from handwritten import write_run
from run_files import amend
from two_runs import network, written

import trajcheck
from trajcheck.errors import NotFiniteError, OutputError, RunError, UsageError


def test_other_models_are_refused_with_both_sides(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", [Record(0, np.ones(9))], {"w": (2, 3), "only.a": (2,), "b": (1,)})
    other = write_run(tmp_path / "b", [Record(0, np.ones(10))], {"w": (3, 2), "b": (1,), "only.b": (3,)})
    with pytest.raises(RunError) as caught:
        trajcheck.compare(one, other, out=tmp_path / "report")
    message = str(caught.value)
    assert f"only {one} has: only.a [2]" in message and f"only {other} has: only.b [3]" in message
    assert "shapes differ: w [2, 3] and [3, 2]" in message
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("step", ["2 records of steps 0 to 2", "2 records of steps 1 to 3", "--align time"]),
        ("time", ["with tau 0 to 0.2", "with tau 0.1 to 0.3", "--interpolate"]),
        ("loss", ["without a loss", "with losses 1 to 2"]),
    ],
)
def test_nothing_to_match_says_what_either_has(tmp_path: Path, how: str, words: list[str]) -> None:
    a = [Record(t, np.ones(2), tau=t / 10) for t in (0, 2)]
    b = [Record(t, np.ones(2), tau=t / 10, loss=(t + 1) / 2) for t in (1, 3)]
    runs = [written(tmp_path, name, each, None) for name, each in (("a", a), ("b", b))]
    with pytest.raises(RunError) as caught:
        trajcheck.compare(*runs, align=how, out=tmp_path / "report")
    for word in (*words, str(runs[0]), str(runs[1])):
        assert word in str(caught.value)


def test_times_that_nobody_recorded_are_not_made_up(tmp_path: Path) -> None:
    with_tau = written(tmp_path, "a", [Record(t, np.ones(2), lr=0.1, tau=t / 10) for t in range(3)], None)
    without = written(tmp_path, "b", [Record(t, np.ones(2)) for t in range(3)], None)
    with pytest.raises(RunError, match=r"3 records of steps 0 to 2, without a tau\. .*--align step"):
        trajcheck.compare(with_tau, without, align="time", out=tmp_path / "report")
    found = trajcheck.compare(with_tau, without, out=tmp_path / "report")
    assert "tau_b" not in found.pairs and "no tau was recorded" in set(found.undefined["reason"])
    later = [Record(t, np.ones(2), lr=0.1) for t in (1, 3)]
    with pytest.raises(RunError, match=r"1 to 3, without a tau \(the learning rate of step 0 is not known\)\. "):
        trajcheck.compare(with_tau, written(tmp_path, "c", later, None), align="time", out=tmp_path / "report")


def test_times_follow_where_the_rate_of_every_step_is_known(tmp_path: Path) -> None:
    rates = (0.1, 0.2, 0.4, 0.1)
    taus = [0.0, *np.cumsum(rates)]
    a = written(tmp_path, "a", [Record(t, np.ones(2) * t, lr=0.1, tau=t / 10) for t in range(9)], None)
    b = written(tmp_path, "b", [Record(t, np.ones(2), lr=rate) for t, rate in enumerate(rates)], None)
    found = trajcheck.compare(a, b, align="time", out=tmp_path / "report").pairs
    np.testing.assert_allclose(found["tau_b"], taus[:4], rtol=1e-12)
    assert list(found["step_a"]) == [0, 1, 3, 7] and list(found["step_b"]) == [0, 1, 2, 3]


def test_groups_that_differ_in_tau_have_no_time(tmp_path: Path) -> None:
    records = [Record(t, np.ones(2) * t) for t in range(4)]
    a, b = written(tmp_path, "a", records, None), written(tmp_path, "b", records, None)
    for t in range(4):
        amend(a, t, tau=[0.1 * t, 0.1 * t])
        amend(b, t, tau=[0.1 * t, 0.1 * t] if t < 2 else [0.1 * t, 0.2 * t])
    found = trajcheck.compare(a, b, align="time", out=tmp_path / "report")
    assert found.pairs["step_a"].tolist() == [0, 1]
    assert found.summary["unmatched"][str(b)]["b"]["steps"] == "2-3"
    stepwise = trajcheck.compare(a, b, out=tmp_path / "stepwise")
    assert stepwise.pairs["tau_b"].isna().tolist() == [False, False, True, True]
    assert "parameter groups differ in tau" in set(stepwise.undefined["reason"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"align": "epoch"}, "--align 'epoch': expected step, time, loss"),
        ({"tolerance": 0.1}, "--tolerance is of times or losses"),
        ({"align": "time", "tolerance": -1.0}, "--tolerance -1.0"),
        ({"align": "time", "tolerance": float("nan")}, "--tolerance nan"),
        ({"interpolate": True}, "--interpolate"),
        ({"line": 3}, "--line 3 needs --objective"),
        ({"line": -1}, "--line -1: expected"),
        ({"sample": "probe"}, "--sample probe needs --objective"),
        ({"sample": "previous"}, "--sample 'previous': expected own, probe, full"),
        ({"replay_dtype": "float64"}, "--replay-dtype needs"),
        ({"objective": "x.py:f", "line": 0, "sample": "full"}, "--sample full is that of the losses along the line"),
        ({"steps": "3"}, "--steps '3'"),
    ],
)
def test_options_that_make_no_sense(plain_run: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        trajcheck.compare(plain_run, plain_run, out=tmp_path / "report", **options)
    assert not (tmp_path / "report").exists()


def test_no_probe_and_no_data_set(plain_run: Path, tmp_path: Path, objective_file: Path) -> None:
    with pytest.raises(RunError, match="no probe batches were stored"):
        trajcheck.compare(
            plain_run, plain_run, objective=f"{objective_file}:good", sample="probe", out=tmp_path / "report"
        )
    with pytest.raises(trajcheck.TrajcheckError, match="--sample full needs the data set"):
        trajcheck.compare(
            plain_run, plain_run, objective=f"{objective_file}:good", sample="full", out=tmp_path / "report"
        )
    with pytest.raises(trajcheck.TrajcheckError, match="does not fit the run"):
        trajcheck.compare(plain_run, plain_run, objective=f"{objective_file}:other", out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_inf_in_the_middle(tmp_path: Path) -> None:
    records = [Record(t, np.ones(3) * t) for t in range(6)]
    records[2] = Record(2, np.array([1.0, np.inf, 0.0]))
    good, bad = written(tmp_path, "good", network(6), None), written(tmp_path, "bad", records, None)
    for runs in ((good, bad), (bad, good)):
        with pytest.raises(NotFiniteError, match=r"bad/step-000000002.*param/x holds NaN or Inf.*--skip-bad"):
            trajcheck.compare(*runs, out=tmp_path / "report")
    found = trajcheck.compare(good, bad, skip_bad=True, out=tmp_path / "report")
    assert found.pairs["step_a"].tolist() == [0, 1, 3, 4, 5]
    assert list(found.summary["left_out"]["steps"][str(bad)]) == ["2"]


def test_reports_of_others_and_runs_are_not_overwritten(tmp_path: Path) -> None:
    a, b, c = (written(tmp_path, name, network(3), None) for name in "abc")
    trajcheck.compare(a, b, out=tmp_path / "report")
    trajcheck.compare(a, b, out=tmp_path / "report")
    for runs in ((a, c), (b, a), (a, b, c)):
        with pytest.raises(OutputError, match="holds the report of another run"):
            trajcheck.compare(*runs, out=tmp_path / "report")
    with pytest.raises(OutputError, match="another run"):
        trajcheck.analyze(a, out=tmp_path / "report")
    with pytest.raises(OutputError, match="runs are never written to"):
        trajcheck.compare(a, b, out=b / "report")

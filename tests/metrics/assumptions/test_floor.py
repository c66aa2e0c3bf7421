"""f_inf: where it is known, what is measured from it, and what a loss below it does."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import Record
from frames import col, towards
from networks import Logistic
from places import SAMPLES
from quadratics import descend

import trajcheck
from tests.metrics.test_laws import analyzed
from trajcheck.errors import UsageError

UNKNOWN = "f_inf, a lower bound of the losses, is not known: give --loss-floor, 0 where they cannot be negative"


def descent() -> tuple[Logistic, list[Record]]:
    problem, rng = Logistic(3), np.random.default_rng(5)
    return problem, descend(problem, np.zeros(3), [problem.sample(4, rng) for _ in range(12)], [0.3] * 12)


@cache
def logistic(floor: float | None) -> Any:
    problem, records = descent()
    return analyzed(records, problem, loss_floor=floor)


def test_of_an_objective_file_it_is_not_known_unless_it_was_given() -> None:
    report = logistic(None)
    assert "aiming" not in report.references
    assert UNKNOWN in set(report.undefined.query("column == 'aiming'")["reason"])
    rows = report.assumptions.set_index("assumption").loc["aiming"]
    assert rows[["constant", "satisfied", "noise"]].isna().all() and rows["rows"] == 0


def test_aiming_is_measured_from_it() -> None:
    for floor in (0.0, 0.05):
        rows = towards(logistic(floor).references, "final")[:-1]
        np.testing.assert_allclose(
            col(rows, "aiming"), col(rows, "grad_dot_ref") / (col(rows, "loss") - floor), rtol=1e-12
        )


def test_a_loss_below_it_is_a_contradiction_that_is_named() -> None:
    """The lowest at any of the points that are looked at: x_t, x_{t-1} and x*."""
    report, (problem, records) = logistic(0.6), descent()
    found = {
        (problem.f(np.asarray(point.x), each.z), each.step)
        for each in records[:-1]
        for point in (each, records[max(each.step - 1, 0)], records[-1])
    }
    lowest, step = min(found)
    assert lowest < 0.6 and "aiming" not in report.references
    reasons = set(report.undefined.query("table == 'references' and column == 'aiming'")["reason"])
    (reason,) = [each for each in reasons if "f_inf" in each]
    assert reason == f"a loss on the row of step {step} is {lowest:.6g}, which is below f_inf = 0.6"
    assert any(reason in warning for warning in report.summary["warnings"])


def test_of_the_run_s_own_program_it_is_0_where_that_is_shown(tmp_path: Path) -> None:
    """A cross entropy."""
    report = trajcheck.analyze(SAMPLES / "digits-sgd-seed0", objective="run", steps=":4", out=tmp_path / "report")
    rows = towards(report.references, "final")
    np.testing.assert_allclose(col(rows, "aiming"), col(rows, "grad_dot_ref") / col(rows, "loss"), rtol=1e-12)
    assert "not known" not in " ".join(report.undefined["reason"])


def test_it_is_a_finite_number(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--loss-floor nan: expected a number that is finite"):
        trajcheck.analyze(SAMPLES / "digits-sgd-seed0", loss_floor=float("nan"), out=tmp_path / "report")

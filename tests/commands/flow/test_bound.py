"""The bound is its formula, and is given only where the rate is constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten import write_objective, write_run
from known_flows import BOWL, LAYOUT, reasons
from quadratics import Quadratic, descend
from scipy.integrate import quad

import trajcheck
from trajcheck.metrics.columns import column
from trajcheck.metrics.formulas.other_tables.flow import bound, constant_rate


def bound_columns(low: list[float | None], high: list[float | None], norm: list[float]) -> dict[str, Any]:
    zero = [None if value is None else 0.0 for value in low]
    return {
        "flow_grad_norm": column(norm),
        **{"lambda_min": column(low, ["" if v is not None else "not asked" for v in low])},
        **{name: column(zero, ["" if v is not None else "-" for v in low]) for name in ("lambda_min_residual",)},
        **{"lambda_max": column(high, ["" if v is not None else "not asked" for v in high])},
        **{"lambda_max_residual": column(zero, ["" if v is not None else "-" for v in low])},
    }


def test_the_bound_is_its_formula() -> None:
    """Against quadrature, m being the smaller of the neighbours, beta and gamma the largest up to the next."""
    times = np.array([0.0, 0.5, 1.5, 2.0, 4.0, 4.5])
    low, high = [1.0, None, -0.5, None, 2.0, None], [3.0, None, 4.0, None, 3.5, None]
    found = bound(times, bound_columns(low, high, [2.0, 1.0, 5.0, 4.0, 3.0, 9.0]))

    def m(r: float) -> float:
        return -0.5

    def integral(s: float) -> float:
        return float(quad(lambda u: np.exp(-quad(m, u, s)[0]), 0, s)[0])

    beta, gamma = [3.0, 4.0, 4.0, 4.0, 4.0], [2.0, 5.0, 5.0, 5.0, 5.0]
    expected = [b * g * integral(s) for b, g, s in zip(beta, gamma, times, strict=False)]
    np.testing.assert_allclose(found.per_rate.values[:5], expected, rtol=1e-9)
    assert found.per_rate.reasons[5].startswith("after the last time") and not found.largest_rate.defined[5]
    np.testing.assert_allclose(found.largest_rate.values[:5], [2 / 4, 2 / 5, 2 / 5, 2 / 6, 2 / 6])
    np.testing.assert_allclose(found.at(0.1).values[:5], 0.1 * np.array(expected), rtol=1e-9)
    assert list(found.at(0.39).defined) == [True, True, True, False, False, False]


def test_the_maximum_over_earlier_times_counts() -> None:
    """Where m turns large the integral shrinks, and the bound does not."""
    times = np.array([0.0, 1.0, 2.0, 3.0])
    found = bound(times, bound_columns([0.0, 0.0, 50.0, 50.0], [60.0] * 4, [1.0] * 4))
    np.testing.assert_allclose(found.per_rate.values, [0, 60, 120, 120])


def test_an_unstable_flow_overflows_with_a_reason() -> None:
    found = bound(np.array([0.0, 1.0]), bound_columns([-1e4, -1e4], [1.0, 1.0], [1.0, 1.0]))
    assert "overflows" in found.per_rate.reasons[1] and found.per_rate.defined[0]


def test_the_rate_is_constant_or_there_is_none() -> None:
    tau = np.cumsum([0.0] + [0.1] * 10)
    assert constant_rate(list(range(11)), list(tau), [0.1] * 10)[0] == 0.1
    assert constant_rate([0, 5, 10], [0.0, None, 1.0], [None, None])[0] == pytest.approx(0.1)
    for taus, rates in (([0.0, 0.5, 0.9], [0.1] * 2), ([0.0, 0.5, 1.0], [0.1, 0.2]), ([0.0, 0.0, 0.0], [0.0, 0.0])):
        eta, reason = constant_rate([0, 5, 10], taus, rates)
        assert eta is None and "not constant" in reason
    assert constant_rate([3], [0.3], [])[0] is None


def test_a_rate_that_changes_has_no_bound_but_a_wanted_one(tmp_path: Path) -> None:
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    rates = [0.1] * 5 + [0.05] * 5
    records = descend(problem, np.ones(6), [np.zeros((1, 6))] * 10, rates)
    run = write_run(tmp_path / "run", records, LAYOUT)
    objective = write_objective(tmp_path / "objective.py", problem, LAYOUT)
    report = trajcheck.flow(run, objective, curvature=3, wanted_distance=10.0, out=tmp_path / "report")
    assert "bound_estimate" not in report.flow and len(reasons(report, "bound_estimate")) == 11
    assert "not constant" in reasons(report, "bound_estimate")[0]
    wanted = report.summary["headline"]["wanted"]
    assert 0 < wanted["eta"] <= 2 / (4.0 + 0.05) + 1e-6 and not report.incomplete
    huge = trajcheck.flow(run, objective, curvature=3, wanted_distance=1e9, out=tmp_path / "report")
    assert huge.summary["headline"]["wanted"] == pytest.approx(
        {"distance": 1e9, "eta": 2 / (4.0 + 0.05), "limited_by": "stability"}
    )

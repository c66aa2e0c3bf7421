"""Errors of means, sums and shares along a path: two of them cover what they are errors of in 95 cases of 100."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, stdtrit

from trajcheck.metrics.columns import column
from trajcheck.metrics.shares import share_error
from trajcheck.metrics.student import effective_freedom, widening, widenings
from trajcheck.metrics.uncertainty import draw_error, weighted_mean

EVEN = np.ones(100)
EARLY = np.concatenate([np.ones(40), np.linspace(1, 30, 20)])  # dense at the beginning
FEW = np.full(10, 20.0)


def test_the_quantile_is_students() -> None:
    freedom = np.array([1.0, 1.3, 2.0, 3.0, 11.75, 40.0, 1e4])
    for errors in (2.0, 3.0):
        found = widenings(freedom, errors)
        np.testing.assert_allclose(found, stdtrit(freedom, ndtr(errors)) / errors, rtol=1e-9)
        assert widening(2.0, errors) == found[2]


def test_satterthwaite_of_equal_parts_is_the_classical_number() -> None:
    apart = np.eye(6) - 1 / 6
    assert effective_freedom(apart) == pytest.approx(5)
    assert effective_freedom(np.diag([1.0, 0.0, 0.0])) == 1


def test_of_equal_stretches_it_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=100)
    found = weighted_mean(column(values), EVEN)
    means = values.reshape(10, 10).mean(1)
    assert found is not None and found[0] == pytest.approx(values.mean())
    assert found[1] == pytest.approx(means.std(ddof=1) / 10**0.5 * stdtrit(9, ndtr(2.0)) / 2, rel=1e-9)


@pytest.mark.parametrize("weights", [EVEN, EARLY, FEW], ids=["even", "early", "few"])
def test_two_errors_cover_the_mean(weights: np.ndarray) -> None:
    """Also of unequal weights, of which stretches of equally many rows would be as good as one or two."""
    rng = np.random.default_rng(1)
    found = [weighted_mean(column(rng.normal(size=len(weights))), weights) for _ in range(600)]
    pairs = np.array([each for each in found if each is not None and each[1] is not None])
    assert len(pairs) == 600
    assert 0.93 <= np.mean(np.abs(pairs[:, 0]) <= 2 * pairs[:, 1]) <= 0.985
    true = np.sqrt((weights**2).sum()) / weights.sum()
    assert true <= np.median(pairs[:, 1]) < 1.6 * true


def test_without_two_degrees_of_freedom_there_is_no_error() -> None:
    weights = np.ones(30)
    weights[-1] = 300.0
    found = weighted_mean(column(np.arange(30.0)), weights)
    assert found == (pytest.approx(np.average(np.arange(30.0), weights=weights)), None)


@pytest.mark.parametrize("count", [5, 200])
def test_two_errors_cover_a_sum_of_other_draws(count: int) -> None:
    rng, weights = np.random.default_rng(2), np.ones(count)
    trend = np.linspace(0, 1, count)
    off = [(noise := rng.normal(size=count), draw_error(trend + noise, weights)) for _ in range(800)]
    assert 0.93 <= np.mean([abs(noise.sum()) <= 2 * error for noise, error in off]) <= 0.985
    assert draw_error(np.ones(1), np.ones(1)) == 0


@pytest.mark.parametrize("probability", [0.003, 0.02, 0.3])
@pytest.mark.parametrize("count", [30, 200])
def test_two_errors_cover_a_share(probability: float, count: int) -> None:
    """Also where no row, or every one, is of the kind: of 0 of n rows they reach to 4 / (n + 4)."""
    rng, covered = np.random.default_rng(3), []
    for _ in range(300):
        found = weighted_mean(column((rng.random(count) < probability).astype(float)), np.ones(count))
        assert found is not None
        error = share_error(*found, count)
        assert error is not None and error > 0
        covered.append(abs(found[0] - probability) <= 2 * error)
    assert np.mean(covered) >= 0.95


def test_the_error_of_a_share_is_wilsons() -> None:
    assert share_error(0.0, 0.0, 96) == pytest.approx(0.5 * 4 / 100)
    assert share_error(1.0, 0.0, 96) == pytest.approx(0.02)
    assert share_error(0.5, None, 96) is None
    wilson = np.sort(np.roots([1 + 4 / 25, -(2 * 0.3 + 4 / 25), 0.3**2]))  # (0.3 - q)^2 = 4 q (1 - q) / 25
    assert share_error(0.3, 0.0, 25) == pytest.approx((wilson[1] - 0.3) / 2)
    assert share_error(0.7, 0.0, 25) == pytest.approx((wilson[1] - 0.3) / 2)
    assert share_error(0.3, 0.2, 25) == 0.2  # rows that are correlated along the path

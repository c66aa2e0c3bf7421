"""trajcheck.metrics.tails: Gaussians of any scales and covariance equal their null, stable noise lies below it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import levy_stable

from trajcheck.metrics.formulas.tail import NOT_LARGER, tail_index, tail_index_null
from trajcheck.metrics.tails import Tails, null

Draw = Callable[[np.random.Generator, int], np.ndarray]


def standardised(gradients: np.ndarray) -> np.ndarray:
    off = gradients - gradients.mean(axis=0)
    return off / np.sqrt((off**2).sum(axis=0) / (len(gradients) - 1))


def tails(gradients: np.ndarray) -> Tails:
    """Of one row, from gradients [m, n]."""
    z, (m, n) = standardised(gradients), gradients.shape
    k = math.isqrt(m)
    sums = [z[at : at + k].sum(axis=0) for at in range(0, m - k + 1, k)]
    logs = np.log(np.abs(z)).sum(axis=1)[:, None]
    return Tails(m, np.array([float(n)]), logs, np.array([sum(np.log(np.abs(each)).sum() for each in sums)]))


def found(gradients: np.ndarray) -> tuple[float, float, float]:
    """The index, that of Gaussians, and its error."""
    of, told = tails(gradients), np.array([""], dtype=object)
    gaussian = tail_index_null(of, told)
    columns = tail_index(of, told), gaussian[""], gaussian["_se"]
    assert all(each.whole for each in columns)
    return tuple(float(each.values[0]) for each in columns)  # type: ignore[return-value]


def unequal(stream: np.random.Generator, m: int) -> np.ndarray:
    return stream.normal(size=(m, 500)) * np.exp(stream.normal(size=500)) + stream.normal(size=500)


def correlated(stream: np.random.Generator, m: int) -> np.ndarray:
    """500 coordinates of 20 numbers."""
    return stream.normal(size=(m, 20)) @ stream.normal(size=(20, 500))


@pytest.mark.parametrize("m", [8, 16, 50])
@pytest.mark.parametrize("draw", [unequal, correlated])
def test_gaussians_equal_their_null(draw: Draw, m: int) -> None:
    """Within two errors in 19 of 20, and on both sides: scales of log-sd 1, which pooled together read 1.2."""
    off = []
    for seed in range(60):
        index, gaussian, error = found(draw(np.random.default_rng(seed), m))
        off.append((index - gaussian) / error)
    assert (np.abs(off) <= 2).mean() >= 0.88 and 0.25 < (np.array(off) > 0).mean() < 0.75


def test_pooled_they_would_be_called_heavy_tailed() -> None:
    """Why coordinates are standardised: the same estimator on Gaussians of unequal scale as they stand."""
    stream = np.random.default_rng(0)
    pooled = stream.permutation((stream.normal(size=(50, 500)) * np.exp(stream.normal(size=500))).ravel())
    k = 100
    difference = np.log(np.abs(pooled.reshape(-1, k).sum(axis=1))).mean() - np.log(np.abs(pooled)).mean()
    assert 1.2 < math.log(k) / difference < 1.8


@pytest.mark.parametrize("m", [10, 50])
def test_stable_noise_lies_below_the_null(m: int) -> None:
    stream = np.random.default_rng(1)
    noise = levy_stable.rvs(1.5, 0, size=(m, 500), random_state=1) * np.exp(stream.normal(size=500))
    index, gaussian, error = found(noise)
    assert index < gaussian - 3 * error
    if m == 50:
        assert index == pytest.approx(1.5, abs=0.1)


def test_no_index_where_blocks_are_no_larger() -> None:
    stream = np.random.default_rng(2)
    half = stream.normal(size=(8, 50))
    gradients = np.stack([half, -half], axis=1).reshape(16, 50)  # neighbours cancel
    column = tail_index(tails(gradients + 1e-9 * stream.normal(size=(16, 50))), np.array([""], dtype=object))
    assert list(column.reasons) == [NOT_LARGER]


def test_the_null_is_simulated_alike() -> None:
    assert null(8) == null.__wrapped__(8)

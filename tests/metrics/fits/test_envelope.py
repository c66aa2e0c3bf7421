"""Envelopes: the linear program against scipy's, planted constants, laws, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linprog

from trajcheck.metrics.fits.envelope import Envelope, NoFit, upper_envelope
from trajcheck.metrics.fits.linear_program import least_envelopes


def by_one(y: np.ndarray, u: np.ndarray, weights: np.ndarray | None = None) -> Envelope:
    ones = np.ones(len(y))
    return upper_envelope(y, np.stack([ones, u], axis=1), ones if weights is None else weights)


def arrays(found: Envelope) -> list[np.ndarray]:
    assert found.null is not None and found.interval is not None
    return [found.constants, found.null, *found.interval]


@pytest.fixture(scope="module")
def noisy() -> SimpleNamespace:
    random = np.random.default_rng(5)
    u = np.exp(-2 * np.arange(120) / 120 + 0.5 * random.normal(size=120))
    y, weights = 0.7 + 1.5 * u - 0.6 * random.random(120), random.integers(1, 4, size=120).astype(float)
    return SimpleNamespace(u=u, y=y, weights=weights, found=by_one(y, u, weights))


@pytest.mark.parametrize("kind", ["plain", "ties", "equal rows", "nearly parallel", "decades", "exact", "proportional"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_it_is_the_linear_program(kind: str, k: int) -> None:
    random = np.random.default_rng(k)
    for rows in (1, 2, 7, 40):
        u = np.abs(random.normal(size=(rows, k)))
        u[:, 0] = 1.0
        if kind == "ties":
            u = np.round(2 * u) / 2
        if kind == "equal rows":
            u[:] = u[0]
        if kind == "nearly parallel":
            u[:, -1] = u[:, 0] * (1 + 1e-9 * random.random(rows))
        if kind == "decades":
            u[:, 1:] = 10 ** random.uniform(-6, 0, size=(rows, k - 1))
        if kind == "proportional":
            u[:] = u[:, :1]
        y = u @ np.abs(random.normal(size=k)) - (0.0 if kind == "exact" else random.random(rows))
        y, u = y / np.abs(y).max(), u / np.maximum(u.max(axis=0), 1e-300)
        means = u.mean(axis=0)
        found = least_envelopes(u, y, means[None], np.ones((1, rows), dtype=bool))[0]
        wanted = linprog(means, A_ub=-u, b_ub=-y)
        assert means @ found == pytest.approx(wanted.fun, abs=1e-7)
        assert (u @ found - y).min() > -1e-11 and (found >= 0).all()


def test_resamples_are_solved_side_by_side_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    u, y = np.abs(random.normal(size=(30, 3))), random.random(30)
    counts, means = random.random((20, 30)) < 0.6, random.random((20, 3))
    together = least_envelopes(u, y, means, counts)
    many = least_envelopes(np.tile(u, (20, 1, 1)), np.tile(y, (20, 1)), means, counts)
    monkeypatch.setattr("trajcheck.metrics.fits.linear_program.AT_ONCE", 70)
    assert (least_envelopes(u, y, means, counts) == together).all() and np.allclose(many, together, rtol=1e-12)
    for found, part, mean in zip(together, counts, means, strict=True):
        assert mean @ found == pytest.approx(linprog(mean, A_ub=-u[part], b_ub=-y[part]).fun, abs=1e-9)


def test_no_constant_lies_above_a_row_without_regressors() -> None:
    u, y = np.array([[1.0], [0.0]]), np.array([0.5, 1.0])
    both = least_envelopes(u, y, np.ones((2, 1)), np.array([[True, True], [True, False]]))
    assert np.isnan(both[0, 0]) and both[1, 0] == 0.5


def test_constants_are_recovered_with_their_intervals(noisy: SimpleNamespace) -> None:
    found = noisy.found
    assert (noisy.y <= found.constants @ [np.ones(120), noisy.u] + 1e-12).all()
    assert found.constants == pytest.approx([0.7, 1.5], abs=0.05)
    low, median, high = found.interval
    assert (low[:2] < [0.7, 1.5]).all() and (high[:2] > [0.7, 1.5]).all()
    assert (low <= median).all() and (median <= high).all() and low[2] < found.explained < high[2] <= 1
    excess = np.average(found.constants @ [np.ones(120), noisy.u] - noisy.y, weights=noisy.weights)
    alone = np.average(noisy.y.max() - noisy.y, weights=noisy.weights)
    assert found.alone == noisy.y.max() and found.explained == pytest.approx(1 - excess / alone, rel=1e-12)
    assert found.explained > 0.7 > 0.3 > found.null_explained
    assert found.null == pytest.approx([noisy.y.max(), 0.0], abs=0.05)


def test_one_that_reaches_its_bound_is_found_exactly() -> None:
    u = np.exp(-np.arange(50) / 10)
    found = by_one(0.25 + 3 * u, u)
    assert found.constants == pytest.approx([0.25, 3.0], rel=1e-12) and found.explained == pytest.approx(1, abs=1e-12)
    assert found.interval is not None
    for each in found.interval:
        assert each == pytest.approx([0.25, 3.0, 1.0], rel=1e-9)


def test_a_regressor_that_knows_nothing_explains_no_more_than_its_null() -> None:
    random = np.random.default_rng(1)
    found = by_one(2 - random.random(200), np.exp(random.normal(size=200)))
    assert found.explained < found.null_explained < 0.1 and found.interval is not None
    assert found.interval.low[1] == 0 and found.constants == pytest.approx([2, 0], abs=0.02)


def test_where_the_constant_one_meets_every_row_nothing_is_left_to_explain() -> None:
    found = by_one(np.full(40, 2.0), np.linspace(1, 2, 40))
    assert found.constants.tolist() == [2.0, 0.0] and np.isnan([found.explained, found.null_explained]).all()


def test_units_order_and_cut_rows_change_nothing(noisy: SimpleNamespace) -> None:
    loss, length = 3e7, 1e-4  # y is loss / length^2, u is loss / length
    scaled = by_one(noisy.y * loss / length**2, noisy.u * loss / length, noisy.weights)
    back = np.array([length**2 / loss, length])
    for one, two in zip(arrays(scaled), arrays(noisy.found), strict=True):
        assert one[:2] * back == pytest.approx(two[:2], rel=1e-9, abs=1e-12)
    assert scaled.explained == pytest.approx(noisy.found.explained, rel=1e-9)
    assert scaled.null_explained == pytest.approx(noisy.found.null_explained, rel=1e-9)
    order = np.random.default_rng(2).permutation(120)
    other = by_one(noisy.y[order], noisy.u[order], noisy.weights[order])
    times = noisy.weights.astype(int)
    cut = by_one(np.repeat(noisy.y, times), np.repeat(noisy.u, times))
    for each in (other, cut):
        assert each.constants == pytest.approx(noisy.found.constants, rel=1e-12)
        assert each.explained == pytest.approx(noisy.found.explained, rel=1e-12)


def test_the_same_bytes_every_time(noisy: SimpleNamespace) -> None:
    again = by_one(noisy.y, noisy.u, noisy.weights)
    for one, other in zip(arrays(again), arrays(noisy.found), strict=True):
        assert (one == other).all()
    assert again.null_explained == noisy.found.null_explained


def test_few_rows_have_constants_without_an_interval(noisy: SimpleNamespace) -> None:
    found = by_one(noisy.y[:31], noisy.u[:31])
    assert found.interval is None and found.null is None and np.isnan(found.null_explained)
    assert np.isfinite(found.explained)


@pytest.mark.parametrize(
    ("rows", "change", "reason"),
    [
        (7, {}, "the fit rests on up to 2 rows: 7 have what it takes, 8 are needed"),
        (20, {"u": 3.0}, "the regressors are proportional on all rows"),
        (20, {"u": 0.0}, "what is to be bounded, or a regressor, is 0 on all rows"),
        (20, {"y": 0.0}, "what is to be bounded, or a regressor, is 0 on all rows"),
        (20, {"u": np.nan}, "a value that the fit takes is not finite"),
        (20, {"u": -1.0}, "a regressor is negative"),
    ],
)
def test_refused_with_the_reason(rows: int, change: dict[str, float], reason: str, noisy: SimpleNamespace) -> None:
    each = {"y": noisy.y[:rows], "u": noisy.u[:rows], **{name: np.full(rows, value) for name, value in change.items()}}
    with pytest.raises(NoFit, match=reason):
        by_one(each["y"], each["u"])

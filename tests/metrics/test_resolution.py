"""trajcheck.metrics.resolution and judged: quantiles of neighbours, and signs that a wider precision changes."""

from __future__ import annotations

import numpy as np
import pytest

from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.formulas.other_tables.comparison import barrier_resolution
from trajcheck.metrics.formulas.window_sums import window_num
from trajcheck.metrics.judged import judged_otherwise
from trajcheck.metrics.resolution import BOUND, MARGIN, Rounding, nearest_largest, resolution, terms_apart
from trajcheck.metrics.weights import Weights
from trajcheck.reports.making.rounding_warnings import untold_warning

EPS = 2.0**-23
ROUNDING = Rounding(EPS, EPS)


def of(values: np.ndarray) -> Column:
    return column(values.tolist(), ["not here" if np.isnan(value) else "" for value in values])


def test_the_nearest_are_nearest_in_log_loss() -> None:
    """Rows of small losses are judged by rows of small losses, whatever their order."""
    rng = np.random.default_rng(0)
    loss = 10.0 ** rng.uniform(-6, 0, 200)
    found = np.where(rng.random(200) < 0.3, rng.random(200) / loss, np.nan)
    result = nearest_largest(found, of(loss))
    known = np.flatnonzero(np.isfinite(found))
    for t in range(200):
        near = known[np.argsort(abs(np.log(loss[known]) - np.log(loss[t])), kind="stable")][:16]
        assert result[t] == pytest.approx(found[near].max(), rel=1e-12)
    assert np.isnan(nearest_largest(np.full(3, np.nan), of(np.ones(3)))).all()
    assert (nearest_largest(np.array([1.0, np.nan, 3.0]), of(np.ones(3))) == 3.0).all()


def test_never_below_the_bound_nor_below_what_was_seen() -> None:
    one = np.ones(5)
    exact = resolution(of(one), of(one), of(0 * one), of(3 * one), of(2 * one), of(one), ROUNDING)
    np.testing.assert_allclose(exact.values, BOUND * EPS * 2)
    off = one.copy()
    off[3] += 1e-3
    wide = resolution(of(one), of(off), of(off - one), of(3 * one), of(2 * one), of(one), ROUNDING)
    assert wide.values[3] == pytest.approx(MARGIN * 1e-3, rel=1e-9)
    nothing = of(np.full(5, np.nan))
    alone = resolution(of(one), nothing, nothing, of(3 * one), of(2 * one), of(one), ROUNDING)
    np.testing.assert_array_equal(alone.values, exact.values)
    zero = of(0 * one)
    zeros = resolution(zero, zero, zero, zero, zero, zero, ROUNDING)
    assert (zeros.values == 0).all() and zeros.defined.all()


def test_float64_is_resolved_by_what_each_term_is_off_in_float32() -> None:
    """Between points so near that float32 rounds both losses alike the difference itself is off by nothing."""
    x, y = np.full(5, 1e-3), np.full(5, 1e-3) - 1e-12
    seen = 3e-8  # what float32 rounds by
    apart = terms_apart((of(x), of(x + seen)), (of(y), of(y + seen)))
    one = np.ones(5)
    found = resolution(of(x - y), of(x - y), apart, of(x + y), of(x + y), of(x), Rounding(2.0**-52, EPS))
    np.testing.assert_allclose(found.values, MARGIN * 2 * seen * 2.0**-29)
    missing = terms_apart((of(x), of(x + seen)), (of(y), of(np.nan * one)))
    assert not missing.defined.any()


def told(error: float, gap: float, limit: float) -> str | None:
    columns = {"second_loss_error": of(np.full(4, error)), "loss": of(np.full(4, 1e-9))}
    columns |= {"inst_gap": of(np.full(4, gap)), "gap_resolution": of(np.full(4, limit))}
    return untold_warning(columns, "own", "float64", "float32")


def test_what_float32_does_not_show_is_said_where_signs_rest_on_it() -> None:
    warning = told(1.0, 2e-12, 1e-12)
    assert warning is not None and "inst_gap on 4 rows" in warning and "at most 1.0e-09 on the 4 rows" in warning
    assert told(0.4, 2e-12, 1e-12) is None  # some digits are left
    assert told(1.0, 1e-12, 2e-12) is None  # nothing is called resolved


def test_rows_that_a_wider_precision_judges_otherwise() -> None:
    """Known rows count as they are; of the others the undetermined ones as their kind among the known."""
    gap = of(np.array([-1.0, -1.0, 0.1, 0.1, 0.1, -0.1, 2.0, 2.0]))
    second = of(np.array([-1.0, np.nan, -0.05, 0.0, np.nan, np.nan, 2.0, np.nan]))
    limit = of(np.full(8, 0.5))
    weights = Weights(np.arange(8.0), 0, 8)
    share = judged_otherwise(gap, limit, second, 2.0**-29, None, weights)
    assert share == pytest.approx((1 + 0 + 0.5 + 0.5) / 8)  # two undetermined are known, one of them is told
    nothing = of(np.full(8, np.nan))
    assert judged_otherwise(gap, limit, nothing, 2.0**-29, None, weights) == pytest.approx(4 / 8)
    noise = of(np.full(8, 0.2))  # over batches: what is within it, float64 does not tell either
    assert judged_otherwise(gap, limit, nothing, 2.0**-29, noise, weights) == 0
    assert judged_otherwise(nothing, limit, nothing, 2.0**-29, None, weights) is None


def test_a_barrier_is_resolved_by_what_a_wider_precision_shows() -> None:
    s = np.linspace(0, 1, 3)
    losses = np.array([[[1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]])
    second = np.full_like(losses, np.nan)
    np.testing.assert_allclose(barrier_resolution(losses, second, s, ROUNDING), 2 * BOUND * EPS)
    second[0] = [[1.0, 1.001, 1.0]]
    np.testing.assert_allclose(barrier_resolution(losses, second, s, ROUNDING), MARGIN * 1e-3, rtol=1e-9)


def test_a_window_sum_below_its_rounding_is_empty() -> None:
    terms, rounding = of(np.array([0.0, 1.0, -0.9999, 3.0])), of(np.array([0.0, 1e-3, 1e-3, 1e-3]))
    found = window_num(terms, rounding)
    assert found.defined.tolist() == [True, True, False, True]
    assert found.reasons[2] == "the sum is below what its rounding can make"
    assert found.values[3] == pytest.approx(3.0001)

"""Fits of functions whose constants are known, along gradient descent on them; and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trajcheck.metrics.assumptions.alpha_beta import NO_BEST, alpha_beta, alpha_beta_frontier
from trajcheck.metrics.assumptions.entries import SHARES, Entry
from trajcheck.metrics.assumptions.expected_smoothness import NO_NOISE_AT_ALL, NOT_BETWEEN, ONE_SAMPLE, abc
from trajcheck.metrics.assumptions.generalized_smoothness import h0_h1, l0_l1
from trajcheck.metrics.columns import Column, column, constant
from trajcheck.metrics.formulas.noise import UNDETERMINED
from trajcheck.metrics.weights import Weights

Function = Callable[[np.ndarray], np.ndarray]
ROWS = 80
STEPS = np.arange(ROWS)
WEIGHTS = Weights(STEPS.astype(float), 0, ROWS)


def descent(gradient: Function, start: float | np.ndarray, rate: float, noise: float = 0.0) -> np.ndarray:
    """Iterates [ROWS + 1, size]; `noise` as a share of each gradient."""
    random, x = np.random.default_rng(0), [np.atleast_1d(np.asarray(start, dtype=float))]
    for _ in range(ROWS):
        x.append(x[-1] - rate * gradient(x[-1]) * (1 + noise * random.normal(size=x[-1].shape)))
    return np.array(x)


def smoothness(gradient: Function, x: np.ndarray) -> tuple[Column, Column]:
    """inst_smooth and |grad f(x_t)| at x_1, ..., x_ROWS."""
    change = np.linalg.norm(gradient(x[1:]) - gradient(x[:-1]), axis=1)
    return column(change / np.linalg.norm(np.diff(x, axis=0), axis=1)), column(np.linalg.norm(gradient(x[1:]), axis=1))


def by_gradient(gradient: Function, x: np.ndarray) -> dict[str, Entry]:
    smooth, norm = smoothness(gradient, x)
    return l0_l1(smooth, 1e-12 * smooth, norm, WEIGHTS, STEPS)


def cells(found: dict[str, Entry], *names: str) -> list[float]:
    return [float(found[name].cells["constant"]) for name in names]


def test_exp_has_l1_of_1_and_l0_of_0() -> None:
    x = descent(np.exp, 2.0, 0.002, noise=0.5)
    found = by_gradient(np.exp, x)
    longest = float(np.abs(np.diff(x[:, 0])).max())
    l0, l1 = cells(found, "L0", "L1")
    assert 1 <= l1 <= np.expm1(longest) / longest * (1 + 1e-9) and 0 <= l0 < 0.02
    ends = found["L1"].cells
    assert float(ends["quantile_5"]) <= 1 + longest / 2 and float(ends["quantile_95"]) >= 1
    assert float(found["explained"].cells["constant"]) > 0.9 > float(found["explained"].cells["noise"])


def test_a_fourth_power_has_the_tangent_at_the_mean_gradient() -> None:
    """12 x^2 = 12 (u/4)^(2/3) is concave in u = 4 |x|^3, so that the envelope is its tangent at the mean of u."""

    def gradient(x: np.ndarray) -> np.ndarray:
        return 4 * x**3

    x = descent(gradient, 1.5, 2e-3)
    mean = (np.mean(np.abs(gradient(x[1:]))) / 4) ** (1 / 3)
    assert cells(by_gradient(gradient, x), "L0", "L1") == pytest.approx([4 * mean**2, 2 / mean], rel=0.05)


def test_a_quadratic_has_its_eigenvalue_and_no_l1() -> None:
    """One eigenvalue, and one gradient of which nothing is explained: rounding alone is left."""
    random = np.random.default_rng(1)
    x = np.cumsum(random.normal(size=(ROWS + 1, 4)), axis=0)
    found = by_gradient(lambda x: 3.0 * x, x)
    l0, l1 = cells(found, "L0", "L1")
    assert l0 == pytest.approx(3, rel=1e-12) and l1 == pytest.approx(0, abs=1e-12)


def test_random_chords_of_a_quadratic_have_l1_of_0_within_its_interval() -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=(ROWS + 1, 3)) * np.exp(random.normal(size=(ROWS + 1, 1)))
    found = by_gradient(lambda x: x * [1.0, 2.0, 5.0], x)
    assert float(found["L1"].cells["quantile_5"]) == 0 and float(found["L0"].cells["quantile_95"]) > 4.5
    assert float(found["explained"].cells["constant"]) < float(found["explained"].cells["noise"])


def test_the_second_half_is_judged_by_the_first() -> None:
    smooth = np.where(STEPS < 40, 1.0, 2.0) + 0.01 * np.random.default_rng(0).random(ROWS)
    norm = 1 + np.random.default_rng(1).random(ROWS)
    resolution = column(np.where(STEPS % 4 == 0, 5.0, 1e-3))
    entry = l0_l1(column(smooth), resolution, column(norm), WEIGHTS, STEPS)["L0"]
    assert [entry.cells[name] for name in SHARES] == pytest.approx([0, 0.75, 0.25])
    assert float(entry.cells["worst_step"]) >= 40 and float(entry.cells["worst"]) > 900
    turned = l0_l1(column(smooth[::-1]), resolution, column(norm), WEIGHTS, STEPS)["L0"]
    assert turned.cells["violated"] == 0 and turned.cells["rows"] == ROWS


def test_h0_h1_of_exp_is_that_of_its_gradient_and_takes_a_floor() -> None:
    x = descent(np.exp, 2.0, 0.002)
    smooth, norm = smoothness(np.exp, x)
    found = h0_h1(smooth, 1e-12 * smooth, norm, WEIGHTS, STEPS)  # exp is its own gradient, and f_inf = 0
    assert cells(found, "H0", "H1") == pytest.approx(cells(by_gradient(np.exp, x), "L0", "L1"), rel=1e-12)
    unknown = column([None] * ROWS, "no floor")
    found = h0_h1(smooth, 1e-12 * smooth, unknown, WEIGHTS, STEPS)
    assert {found[name].cells["constant"] for name in ("H0", "H1", "explained")} == {"no floor"}


def pairs(c: np.ndarray, above: np.ndarray, floor: np.ndarray, resolution: float = 0.0) -> dict[str, Entry]:
    return alpha_beta(
        column(c), column(above), constant(resolution, ROWS), constant(1e-9, ROWS), column(floor), WEIGHTS, STEPS
    )


def test_alpha_and_beta_of_a_quadratic_are_2_and_0() -> None:
    x = descent(lambda x: x, 1.0, 0.1)[:-1, 0]
    found = pairs(x**2, x**2 / 2, np.full(ROWS, 0.3))
    assert cells(found, "alpha", "beta", "beta_min") == pytest.approx([2, 0, 0], abs=1e-12)
    assert found["alpha"].cells["violated"] == 0


def test_rows_that_are_not_resolved_are_left_out_and_counted() -> None:
    random = np.random.default_rng(3)
    above = np.where(STEPS % 5 == 0, 1e-9, 1 + random.random(ROWS))
    c = np.where(STEPS % 5 == 0, -1.0, above * (1 + random.random(ROWS)))
    found = pairs(c, above, np.full(ROWS, 0.5), resolution=1e-6)
    assert found["alpha"].cells["rows"] == 64 and found["beta_min"].cells["constant"] == 0
    frontier = alpha_beta_frontier(column(c), column(above), constant(1e-6, ROWS), constant(0.5, ROWS))
    assert frontier is not None and (STEPS[frontier.row] % 5 != 0).all()
    assert frontier.alpha[0] == pytest.approx((c / above)[STEPS % 5 != 0].min())


def test_a_loss_that_ascends_towards_its_reference_has_no_best_pair() -> None:
    above = 1 + np.random.default_rng(4).random(ROWS)
    found = pairs(-0.5 * above, above, np.full(ROWS, 0.5))
    assert found["alpha"].cells["constant"] == found["beta"].cells["constant"] == NO_BEST
    assert float(found["beta_min"].cells["constant"]) == pytest.approx(float(above.max()), rel=1e-9)
    found = pairs(-0.5 * above, above, np.zeros(ROWS))
    assert "no alpha > beta meets all rows" in str(found["beta_min"].cells["constant"])


def test_abc_is_recovered_and_refused_with_the_reason() -> None:
    random = np.random.default_rng(5)
    loss, signal = np.exp(-STEPS / 20) + 0.2 * random.random(ROWS), np.exp(random.normal(size=ROWS))
    square = 2 * 0.4 * loss + 1.2 * signal + 0.1 - 0.02 * random.random(ROWS)

    def entries(sample: str, one_batch: bool = False, error: float = 0.01, **left_out: None) -> dict[str, Entry]:
        columns: dict[str, Column | None] = {
            "batch_grad_sq": column(square),
            "batch_grad_sq_se": constant(error, ROWS),
            "grad_true_sq": column(signal),
            "grad_true_sq_se": column(np.where(STEPS < 10, 1e3, error)),
            **left_out,
        }
        return abc(column(loss), WEIGHTS, STEPS, sample, one_batch, **columns)

    found = entries("probe")
    assert cells(found, "A", "B", "C") == pytest.approx([0.4, 1.2, 0.1], abs=0.02)
    assert found["A"].cells["rows"] == ROWS - 10
    assert entries("probe", error=1e3)["A"].cells["constant"] == UNDETERMINED
    assert entries("own")["A"].cells["constant"] == ONE_SAMPLE
    assert entries("own", one_batch=True)["A"].cells["constant"] == NO_NOISE_AT_ALL
    assert entries("full")["A"].cells["constant"] == NO_NOISE_AT_ALL
    assert entries("probe", grad_true_sq=None)["A"].cells["constant"] == NOT_BETWEEN

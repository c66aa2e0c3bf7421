"""trajcheck.metrics.last_iterate against a plain double loop, and on convex problems, where it is never exceeded."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trajcheck.metrics.last_iterate import BLOCK, best_factor, horizons, last_iterate


def plainly(rates: np.ndarray, squares: np.ndarray) -> tuple[float, float, float]:
    """The sum of the rates, the second and the third term, as the theorem writes them: all rates above 0 at the end."""
    T = len(rates)
    total = math.fsum(rates)
    third = 0.0
    for k in range(T - 1):
        after = math.fsum(rates[k + 1 :])
        third += rates[k] / after * math.fsum(rates[k:] ** 2 * squares[k:]) / math.fsum(rates[k:]) / 2
    return total, math.fsum(rates**2 * squares) / (2 * total), third


def schedules(steps: int) -> dict[str, np.ndarray]:
    t = np.arange(steps)
    return {
        "constant": np.ones(steps),
        "linear": 1 - t / steps,
        "cosine": (1 + np.cos(np.pi * t / steps)) / 2,
        "wsd": np.minimum(1.0, (steps - t) / (0.2 * steps)),
    }


@pytest.mark.parametrize("name", schedules(1))
@pytest.mark.parametrize("steps", [1, 2, 300, 600])
def test_as_a_double_loop(name: str, steps: int) -> None:
    stream = np.random.default_rng(steps)
    rates, squares = 1e-3 * schedules(steps)[name], np.exp(2 * stream.normal(size=steps))
    rates[steps // 3 : steps // 3 + steps // 50] = 0  # in the middle a step of rate 0 is none
    found = last_iterate(rates, squares)
    assert found.steps == steps
    np.testing.assert_allclose(found[1:], plainly(rates, squares), rtol=1e-12)


def test_across_blocks() -> None:
    """Blocks are cut from the end; the sums go on from one to the next."""
    stream = np.random.default_rng(0)
    rates, squares = stream.random(2 * BLOCK + 7), stream.random(2 * BLOCK + 7)
    sums, weighed = (np.cumsum(each[::-1])[::-1] for each in (rates, rates**2 * squares))
    third = (rates[:-1] / sums[1:] * weighed[:-1] / sums[:-1]).sum() / 2
    np.testing.assert_allclose(last_iterate(rates, squares)[1:], (sums[0], weighed[0] / (2 * sums[0]), third), 1e-12)


def test_a_rate_of_0_at_the_end_moves_T_back() -> None:
    rates, squares = np.array([0.0, 0.3, 0.0, 0.2, 0.0, 0.0]), np.array([math.nan, 1.0, math.nan, 2.0, math.inf, 5.0])
    found = last_iterate(rates, squares)
    assert found.steps == 4 and found[1:] == last_iterate(np.array([0.3, 0.2]), np.array([1.0, 2.0]))[1:]
    nothing = last_iterate(np.zeros(3), np.ones(3))
    assert nothing.steps == 0 and math.isnan(nothing.last)


def test_units_and_the_best_factor() -> None:
    stream = np.random.default_rng(1)
    rates, squares = stream.random(50), stream.random(50)
    found, c = last_iterate(rates, squares), 1.7
    scaled = last_iterate(c * rates, squares)
    assert scaled.last == pytest.approx(c * found.last) and scaled.gradients == pytest.approx(c * found.gradients)
    first, others = found.distance_term(3.0), found.gradients + found.last
    best = best_factor(first, others)
    assert best is not None
    tried = [first / c + c * others for c in best * np.array([0.99, 1.0, 1.01])]
    assert tried[1] == min(tried) and tried[1] == pytest.approx(2 * math.sqrt(first * others))
    matched = found.distance_term(found.matched_distance())
    assert matched == pytest.approx(others)  # the factor is 1 there
    gap = 2.5 * others
    assert found.distance_term(found.least_distance(gap)) + others == pytest.approx(gap)
    assert found.least_distance(others / 2) == 0 and best_factor(1.0, 0.0) is None


@pytest.mark.parametrize("scale", [1e-300, 1e150])
def test_large_and_small_numbers(scale: float) -> None:
    """A power of two is taken out of the rates, so that their squares are numbers."""
    rates, squares = np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 4.0])
    found, plain = last_iterate(scale * rates, squares / scale), last_iterate(rates, squares)
    np.testing.assert_allclose([found.gradients, found.last], [plain.gradients, plain.last], rtol=1e-12)
    beyond = last_iterate(1e200 * rates, 1e300 * squares)
    assert math.isinf(beyond.gradients) and math.isinf(beyond.last)


@pytest.mark.parametrize(
    ("rates", "squares", "said"),
    [
        ([0.1, -0.1], [1, 1], "the rate of step 1 is -0.1"),
        ([0.1, math.nan], [1, 1], "the rate of step 1 is nan"),
        ([0.1, 0.1], [math.nan, 1], "the square of the gradient of step 0 is nan"),
        ([0.1, 0.1], [1, -1], "the square of the gradient of step 1 is -1"),
        ([0.1], [1, 1], "expected one of each a step"),
    ],
)
def test_what_is_no_rate_or_square(rates: list[float], squares: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        last_iterate(np.array(rates, float), np.array(squares, float))


def test_horizons() -> None:
    assert list(horizons(5)) == [1, 2, 3, 4, 5]
    some = horizons(10**6)
    assert len(some) <= 64 and some[0] == 1 and some[-1] == 10**6 and sorted(some) == list(some)


class Problem:
    """A convex f of n unknowns: |Ax - b|_1, |Ax - b|^2 / 2, max(Ax - b), or the logistic loss of rows of A."""

    def __init__(self, kind: int, stream: np.random.Generator) -> None:
        self.kind = kind
        self.A, self.b = stream.normal(size=(9, 4)), stream.normal(size=9)

    def __call__(self, x: np.ndarray) -> float:
        r = self.A @ x - self.b
        return float((np.abs(r).sum(), r @ r / 2, r.max(), np.logaddexp(0, r).sum())[self.kind])

    def subgradient(self, x: np.ndarray) -> np.ndarray:
        r = self.A @ x - self.b
        if self.kind == 2:
            return self.A[r.argmax()]
        return self.A.T @ (np.sign(r), r, r, np.exp(-np.logaddexp(0, -r)))[self.kind]


def test_never_exceeded_on_convex_problems() -> None:
    """Differentiable or not, at any rates, towards any comparator; and an f that is not convex exceeds it."""
    stream, tightest = np.random.default_rng(2), 0.0
    for trial in range(120):
        f, x = Problem(trial % 4, stream), stream.normal(size=4)
        steps = int(stream.integers(1, 40))
        rates = 10 ** stream.uniform(-3, 0.3) * list(schedules(steps).values())[trial // 4 % 4]
        begin, squares, loss = x, [], 0.0
        for eta in rates:
            g = f.subgradient(x)
            squares.append(g @ g)
            loss = f(x)
            x = x - eta * g
        found = last_iterate(rates, np.array(squares))
        for other in (x, begin, np.zeros(4), 3 * stream.normal(size=4)):
            bound = found.distance_term(float(np.linalg.norm(begin - other))) + found.gradients + found.last
            assert loss - f(other) <= bound * (1 + 1e-9)
            tightest = max(tightest, (loss - f(other)) / bound)
    assert tightest > 0.5  # a bound of twice this would not be noticed otherwise
    rates = np.full(30, 0.05)  # down a concave f(x) = -x^2 / 2 from 1, towards a point far ahead
    away = 1.05 ** np.arange(30)
    found = last_iterate(rates, away**2)
    assert -(away[-1] ** 2) / 2 + 20**2 / 2 > found.distance_term(19.0) + found.gradients + found.last

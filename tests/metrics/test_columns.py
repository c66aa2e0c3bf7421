"""trajcheck.metrics.columns and the statistics of metrics.secant: reasons travel, running values skip the undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trajcheck.metrics.columns import (
    OVERFLOW,
    Column,
    column,
    constant,
    exponential_mean,
    running_max,
    running_mean,
    running_sum,
)
from trajcheck.metrics.formulas.convexity import convexity_ratio
from trajcheck.metrics.shares import shares
from trajcheck.metrics.uncertainty import mean_with_error
from trajcheck.metrics.weights import Weights

values = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=30)


def every_step(count: int) -> Weights:
    return Weights(np.arange(float(count)), 0, count)


def make(numbers: list[float | None], reason: str = "because") -> Column:
    return column(numbers, [reason if number is None else "" for number in numbers])


def test_a_missing_operand_gives_its_reason() -> None:
    a, b = make([1.0, None, 3.0], "no a"), make([1.0, 2.0, None], "no b")
    total = a + b * 2.0
    assert total.values[0] == 3 and np.isnan(total.values[1:]).all()
    assert total.reasons.tolist() == ["", "no a", "no b"]


def test_the_first_reason_wins() -> None:
    assert column([None], "", "second", "third").reasons.tolist() == ["second"]
    assert np.isnan(column([5.0], "not wanted").values[0])


def test_dividing_by_zero_has_a_reason() -> None:
    quotient = make([1.0, 1.0]).over(make([2.0, 0.0]), "nothing to divide by")
    assert quotient.values[0] == 0.5
    assert quotient.reasons.tolist() == ["", "nothing to divide by"]


def test_overflow_has_a_reason() -> None:
    assert (make([1e300]) * make([1e300])).reasons.tolist() == [OVERFLOW]
    assert (-make([4.0])).sqrt().reasons.tolist() == [OVERFLOW]


@given(values)
def test_every_nan_has_a_reason_and_every_number_none(numbers: list[float | None]) -> None:
    a = make(numbers)
    steps = np.arange(len(a))
    smooth, total = exponential_mean(a, steps, 0.99), running_sum(a, every_step(len(a)))
    for each in (a * a, abs(a), a.over(a, "zero"), total, smooth, running_max(a)):
        assert (np.isnan(each.values) == (each.reasons != "")).all()


@given(values)
def test_running_values_are_those_of_the_defined_prefix(numbers: list[float | None]) -> None:
    a = make(numbers)
    steps = np.cumsum(np.arange(1, len(a) + 1))  # 1, 3, 6, 10, ...
    weights = Weights(steps.astype(float), 0, int(steps[-1]) + 3)
    total, mean, highest, smooth = (
        running_sum(a, weights),
        running_mean(a, weights),
        running_max(a),
        exponential_mean(a, steps, 0.99),
    )
    weighs = weights.of(a.defined)
    for t, number in enumerate(numbers):
        if number is None:
            continue
        seen = [i for i in range(t + 1) if numbers[i] is not None]
        x, w = np.array([numbers[i] for i in seen], dtype=float), weighs[seen]
        assert total.values[t] == pytest.approx(w @ x, rel=1e-12, abs=1e-6)
        assert mean.values[t] == pytest.approx(np.average(x, weights=w), rel=1e-12, abs=1e-6)
        assert highest.values[t] == x.max()
        held = np.repeat(x, np.diff(steps[seen], prepend=steps[seen[0]] - 1))  # each for the steps since the row before
        powers = 0.99 ** np.arange(len(held))[::-1]
        assert smooth.values[t] == pytest.approx(np.average(held, weights=powers), rel=1e-9, abs=1e-6)


def test_a_ratio_needs_a_resolved_denominator() -> None:
    ratio = convexity_ratio(make([1.0, 1.0, 1.0]), make([0.5, 2.0, -2.0]), constant(1.0, 3), constant(0.0, 3))
    assert ratio.values.tolist()[1:] == [0.5, -0.5]
    assert "below its resolution" in ratio.reasons[0]


def test_shares_count_three_ways_and_by_weight() -> None:
    gap, resolution = make([-1.0, 1.0, 0.01, None]), constant(0.1, 4)
    weights = Weights(np.array([0.0, 1.0, 4.0, 20.0]), 0, 8)  # 0; 1 and 2; 3 to 7
    found = shares(gap, resolution, weights)
    assert found is not None and found.of == {
        "convex": 1 / 8, "not_convex": 2 / 8, "undetermined": 5 / 8,
    }  # fmt: skip
    assert shares(make([None]), constant(1.0, 1), every_step(1)) is None


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    """For independent draws, batch means estimate sigma / sqrt(n); for correlated ones more, as they should."""
    stream = np.random.default_rng(0)
    n, errors, means = 400, [], []
    for _ in range(300):
        found = mean_with_error(make(list(stream.normal(size=n))), every_step(n))
        assert found is not None and found[1] is not None
        means.append(found[0])
        errors.append(found[1])
    assert np.mean(errors) == pytest.approx(1 / np.sqrt(n), rel=0.1)
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.15)

    noise = stream.normal(size=(300, n + 3))
    smooth = (noise[:, 3:] + noise[:, 2:-1] + noise[:, 1:-2] + noise[:, :-3]) / 2  # correlated over four rows
    correlated = [mean_with_error(make(list(row)), every_step(n)) for row in smooth]
    assert np.mean([each[1] for each in correlated if each and each[1]]) == pytest.approx(2 / np.sqrt(n), rel=0.2)


def test_few_rows_have_a_mean_without_an_error() -> None:
    assert mean_with_error(make([1.0, None, 3.0]), every_step(3)) == (
        5 / 3,
        None,
    )  # the second step is as near to either
    assert mean_with_error(make([None]), every_step(1)) is None

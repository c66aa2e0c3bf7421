"""trajcheck.commands.flow.integrate: theta' = F(theta), its tolerance, its cap, and going on from a saved state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from quadratics import Quadratic
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from trajcheck.commands.flow.integrate import EvaluationCap, SolutionPoint, integrate
from trajcheck.errors import IntegrationError, UsageError

SADDLE = Quadratic.with_spectrum([-0.5, 0.1, 1.0, 4.0], seed=3)
START = np.random.default_rng(4).normal(size=4)
TIMES = [0.0, 0.05, 0.1, 0.1, 0.7, 1.3, 2.0, 2.05, 5.0]


def downhill(theta: np.ndarray) -> np.ndarray:
    return -(SADDLE.hessian @ theta)


def curved(theta: np.ndarray) -> np.ndarray:
    """A quartic well, so that steps differ in length and some are rejected."""
    return -(theta**3) * np.array([40.0, 1.0, 5.0, 0.3]) - np.roll(theta, 1)


def points(rhs: Callable[[np.ndarray], np.ndarray] = downhill, **options: object) -> list[SolutionPoint]:
    return list(integrate(rhs, START, TIMES, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("rtol", [1e-4, 1e-7, 1e-10, 1e-12])
def test_a_linear_flow_is_the_matrix_exponential(rtol: float) -> None:
    for point in points(rtol=rtol):
        exact = expm(-SADDLE.hessian * point.time) @ START
        assert np.linalg.norm(point.theta - exact) <= 10 * rtol * np.linalg.norm(exact) + 1e-14


def test_it_is_what_solve_ivp_gives() -> None:
    for rhs in (downhill, curved):
        solved = solve_ivp(lambda _, y, f=rhs: f(y), (0.0, 5.0), START, t_eval=np.unique(TIMES), rtol=1e-5, atol=1e-7)
        ours = {point.time: point.theta for point in points(rhs, rtol=1e-5)}
        np.testing.assert_allclose(np.array(list(ours.values())).T, solved.y, rtol=1e-13, atol=1e-14)


def test_evaluations_are_those_of_solve_ivp_and_do_not_grow_with_the_times() -> None:
    budget = EvaluationCap()
    list(integrate(curved, START, np.linspace(0, 5, 400).tolist(), budget=budget))
    assert budget.spent == solve_ivp(lambda _, y: curved(y), (0.0, 5.0), START, rtol=1e-4, atol=1e-6).nfev < 400


@pytest.mark.parametrize("rhs", [downhill, curved])
@pytest.mark.parametrize("stop", range(len(TIMES)))
def test_going_on_from_any_point_gives_the_same_bits(rhs: Callable[[np.ndarray], np.ndarray], stop: int) -> None:
    whole = points(rhs)
    budget = EvaluationCap(spent=whole[stop].state.evaluations)
    rest = list(integrate(rhs, START, TIMES, state=whole[stop].state, done=stop + 1, budget=budget))
    assert [point.theta.tobytes() for point in rest] == [point.theta.tobytes() for point in whole[stop + 1 :]]
    assert [point.state.evaluations for point in rest] == [point.state.evaluations for point in whole[stop + 1 :]]
    everything = EvaluationCap()
    list(integrate(rhs, START, TIMES, budget=everything))
    assert not rest or budget.spent == everything.spent


def test_the_cap_ends_it_with_what_was_reached() -> None:
    everything = EvaluationCap()
    list(integrate(curved, START, TIMES, budget=everything))
    budget, reached, calls = EvaluationCap(everything.spent - 1), 0, 0

    def counted(theta: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return curved(theta)

    with pytest.raises(IntegrationError, match=f"cap of {everything.spent - 1} gradient"):
        for reached, _ in enumerate(integrate(counted, START, TIMES, budget=budget), start=1):  # noqa: B007
            pass
    assert reached == len(TIMES) - 1 and calls == budget.spent == everything.spent - 1
    assert len(list(integrate(curved, START, TIMES, budget=EvaluationCap(everything.spent)))) == len(TIMES)


def test_one_time_needs_no_evaluation() -> None:
    budget = EvaluationCap(0)
    (point,) = integrate(downhill, START, [3.0], budget=budget)
    assert point.theta.tobytes() == START.tobytes() and point.time == 3.0 and budget.spent == 0
    assert [p.theta.tobytes() for p in integrate(downhill, START, [0.0] * 3, budget=budget)] == [START.tobytes()] * 3


def test_points_do_not_share_memory() -> None:
    found = points()
    found[0].theta[:] = found[4].theta[:] = np.nan
    assert np.isfinite(START).all() and all(np.isfinite(found[i].theta).all() for i in (1, 2, 3, 5, 8))
    assert np.isfinite(found[8].state.theta).all()


def test_a_flow_that_cannot_go_on() -> None:
    """theta' = theta^2 from 1 is infinite at 1; a right-hand side without a value there."""
    with pytest.raises(IntegrationError, match="no step is short enough"):
        list(integrate(lambda x: x**2, np.ones(1), [0.0, 0.5, 2.0]))
    with pytest.raises(IntegrationError, match="not finite where it starts"):
        list(integrate(lambda x: x * np.nan, np.ones(2), [0.0, 1.0]))


def test_a_trial_step_may_overflow() -> None:
    """exp(theta) overflows in a long step and not in a short one; the flow itself is -log(e^-x + tau)."""
    found = list(integrate(lambda x: -np.exp(x), np.array([5.0]), [0.0, 1.0, 100.0], rtol=1e-8))
    np.testing.assert_allclose(
        [p.theta[0] for p in found], [5, -np.log(np.exp(-5) + 1), -np.log(np.exp(-5) + 100)], 1e-6
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rtol": 0.0}, "rtol is 0"),
        ({"rtol": 1e-15}, "rtol is 1e-15"),
        ({"rtol": 1.0}, "rtol is 1"),
        ({"atol": 0.0}, "atol is 0"),
        ({"atol": float("nan")}, "atol is nan"),
    ],
)
def test_bad_tolerances(options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        points(downhill, **options)


@pytest.mark.parametrize("times", [[0.0, 1.0, 0.5], [0.0, float("nan")], [0.0, float("inf")]])
def test_bad_times(times: list[float]) -> None:
    with pytest.raises(UsageError, match="must not decrease"):
        list(integrate(downhill, START, times))

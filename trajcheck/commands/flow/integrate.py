"""theta'(tau) = F(theta(tau)), integrated to given times so that it can be stopped and taken up again, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.integrate import RK45

from trajcheck.errors import IntegrationError, UsageError

#: Where `atol` is not given it is this share of `rtol`, as scipy's own defaults have it to a factor of ten.
ABSOLUTE = 1e-2


@dataclass
class EvaluationCap:
    """A cap on evaluations of the right-hand side, for as many integrations as share it; None: no cap."""

    limit: int | None = None
    spent: int = 0

    def take(self) -> None:
        """Count one evaluation. Raises IntegrationError where none is left."""
        if self.limit is not None and self.spent >= self.limit:
            raise IntegrationError(f"its cap of {self.limit:,} gradient evaluations was reached")
        self.spent += 1


@dataclass(frozen=True)
class State:
    """The beginning of the step that contains the last time reached: all that it takes to go on from there.

    theta [n] float64 at `time`; `step` is the length that the integrator tries first (None: it has not begun), and
    `evaluations` those that led here.
    """

    time: float
    theta: np.ndarray
    step: float | None
    evaluations: int


@dataclass(frozen=True)
class SolutionPoint:
    """theta [n] float64 at a time that was asked for, and the state from which what follows can be computed again."""

    time: float
    theta: np.ndarray
    state: State


def integrate(
    rhs: Callable[[np.ndarray], np.ndarray],
    theta0: np.ndarray,
    times: Sequence[float],
    *,
    rtol: float = 1e-4,
    atol: float | None = None,
    budget: EvaluationCap | None = None,
    state: State | None = None,
    done: int = 0,
) -> Iterator[SolutionPoint]:
    """theta at each of `times`, for theta' = rhs(theta), theta(times[0]) = theta0 [n]; all in float64.

    By the explicit Runge-Kutta pair of Dormand and Prince, RK45: the stepper of scipy's solve_ivp, driven step by step.
    A step's estimated error stays below atol + rtol |theta| in the root mean square over the components. Steps are as
    long as that allows; times inside a step come from its interpolant of order 4, as with solve_ivp(t_eval=times), and
    cost no evaluation. `atol` None is rtol / 100.

    With the `state` of the point number `done` - 1, the points from number `done` on are computed anew, the same bit
    for bit wherever `rhs` gives the same bits twice. The evaluation that takes up a state repeats one that was counted
    already, and is not counted.

    Errors: UsageError for times that decrease or tolerances that cannot be met in float64; IntegrationError where the
    `budget` is spent, where `rhs` is not finite at theta0, or where the step shrinks below the spacing of floating
    numbers (a right-hand side that jumps, or is not finite ahead). Points up to there have been yielded.
    """
    atol = ABSOLUTE * rtol if atol is None else atol
    check_tolerances(rtol, atol)
    if any(b < a for a, b in pairwise(times)) or not np.isfinite(times).all():
        raise UsageError("the times to integrate to must be finite and must not decrease")
    count = _Count(rhs, budget or EvaluationCap())
    state = state or State(float(times[0]), np.array(theta0, dtype=np.float64), None, 0)
    solver: RK45 | None = None
    between: Callable[[float], np.ndarray] | None = None
    for time in times[done:]:
        theta = state.theta
        if time > times[0]:
            solver = solver or _taken_up(count, state, float(times[-1]), rtol, atol)
            while solver.t < time:
                state, between = State(float(solver.t), solver.y, float(solver.h_abs), count.own), None
                _step(solver)
            if solver.t == time:
                theta = solver.y
            else:
                between = between or solver.dense_output()
                theta = between(time)
        yield SolutionPoint(float(time), np.array(theta), state)


def check_tolerances(rtol: float, atol: float) -> None:
    """Raise UsageError for tolerances that cannot be met in float64."""
    smallest = 100 * np.finfo(np.float64).eps
    if not smallest <= rtol < 1:
        raise UsageError(f"rtol is {rtol:g}; expected a number from {smallest:.1e} to 1")
    if not (atol > 0 and np.isfinite(atol)):
        raise UsageError(f"atol is {atol:g}; expected a positive number")


class _Count:
    """The right-hand side as scipy calls it, counted: `own` of this integration, and those of the budget."""

    def __init__(self, rhs: Callable[[np.ndarray], np.ndarray], budget: EvaluationCap) -> None:
        self._rhs, self._budget = rhs, budget
        self.own = 0
        self.free = 0  # evaluations to come that were counted before

    def __call__(self, _: float, theta: np.ndarray) -> np.ndarray:
        if self.free:
            self.free -= 1
        else:
            self._budget.take()
            self.own += 1
        return np.asarray(self._rhs(theta), dtype=np.float64)


def _taken_up(count: _Count, state: State, end: float, rtol: float, atol: float) -> RK45:
    """The integrator at the beginning of a step."""
    begun = state.step is not None
    count.own, count.free = state.evaluations, int(begun)
    with np.errstate(all="ignore"):
        first = end - state.time if begun else None
        solver = RK45(count, state.time, state.theta, end, rtol=rtol, atol=atol, first_step=first)
    if not np.isfinite(solver.f).all():
        raise IntegrationError("the gradient is not finite where it starts")
    if begun:
        solver.h_abs = state.step  # may be longer than what is left, which first_step may not
    return solver


def _step(solver: RK45) -> None:
    with np.errstate(all="ignore"):  # a trial step may overflow; it is then tried again, shorter
        message = solver.step()
    if solver.status == "failed":
        raise IntegrationError(
            f"at time {solver.t:.6g} no step is short enough ({message}): the gradient jumps or is not finite ahead, "
            "or rounding in it exceeds the tolerance"
        )

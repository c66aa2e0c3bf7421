"""The last-iterate bound of the theory of learning rate schedules, in which nothing is fitted.

Of subgradient steps x_{t+1} = x_t - eta_t g_t, t = 1..T, on a convex f, and of any comparator x*, D = |x_1 - x*|:

    f(x_T) - f(x*) <= D^2 / (2 S_1)  +  Q_1 / (2 S_1)  +  1/2 sum_{k<T} (eta_k / S_{k+1}) (Q_k / S_k),

    S_k = sum_{t=k..T} eta_t,    Q_k = sum_{t=k..T} eta_t^2 |g_t|^2.

T is the last step that has a gradient: x_T is where it was taken, not where its update led. Nothing else is asked of f,
smoothness neither. Where g_t are stochastic gradients, whose mean given x_t is a subgradient at x_t, the inequality is
one of means over runs, for an x* that does not depend on the draws.

A step of rate 0 changes nothing and adds nothing. At the end of a run that would divide by 0: the theorem says nothing
of an iterate behind the last update with a rate above 0, so T is the step of that update.

With all rates multiplied by c the bound is A / c + c B, A its first term and B the other two: least at c = sqrt(A / B),
where it is 2 sqrt(A B). Sources: Defazio et al., arXiv 2310.07831, theorem 10; Schaipp et al., arXiv 2501.18965.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Steps that are summed one after the other: rounding of a sum over T steps grows with this and T / this, not with T.
BLOCK = 4096


class LastIterate(NamedTuple):
    """What the bound is made of beside D. `steps` is T, counted from the first step; 0 where no step has a rate above
    0, and nothing else is then known (NaN). `rate_sum` is S_1, `gradients` the second term, `last` the third. A sum
    beyond the largest number is inf."""

    steps: int
    rate_sum: float
    gradients: float
    last: float

    def distance_term(self, distance: float) -> float:
        """D^2 / (2 S_1)."""
        return distance * (distance / self.rate_sum) / 2

    def matched_distance(self) -> float:
        """The D at which the best constant factor on the rates is 1: sqrt(2 S_1 (second term + third))."""
        return math.sqrt(2 * self.rate_sum) * math.sqrt(self.gradients + self.last)

    def least_distance(self, gap: float) -> float:
        """The least D at which a convex f may have a gap f(x_T) - f(x*) as large as this one; 0 where any may."""
        return math.sqrt(2 * self.rate_sum) * math.sqrt(max(gap - self.gradients - self.last, 0.0))


def last_iterate(rates: np.ndarray, squares: np.ndarray) -> LastIterate:
    """The bound of the steps t = 1..n with rates eta_t [n] and squares |g_t|^2 [n] of their gradients.

    Rates are finite and not negative; squares too, where the rate is above 0: elsewhere they are not looked at. In
    float64, from the end in blocks: O(n), and in memory that does not grow with n. Raises ValueError.
    """
    check(rates, squares)
    positive = np.flatnonzero(rates > 0)
    steps = int(positive[-1]) + 1 if len(positive) else 0
    if not steps:
        return LastIterate(0, math.nan, math.nan, math.nan)
    power = int(math.frexp(float(rates.max()))[1])  # a power of 2 takes no digit, and keeps squares of rates in range
    rate_sum, weighed, parts = 0.0, 0.0, []
    with np.errstate(all="ignore"):
        for stop in range(steps, 0, -BLOCK):
            block = slice(max(0, stop - BLOCK), stop)
            eta = np.ldexp(rates[block][::-1], -power)
            terms = np.where(eta > 0, eta * (eta * squares[block][::-1]), 0.0)
            sums, weights = rate_sum + np.cumsum(eta), weighed + np.cumsum(terms)
            after = np.concatenate([[rate_sum], sums[:-1]])
            first = 1 if stop == steps else 0  # T itself has no term
            parts.append(float(np.sum(eta[first:] / after[first:] * (weights[first:] / sums[first:]))))
            rate_sum, weighed = float(sums[-1]), float(weights[-1])
        scale = np.ldexp(0.5, power)
        last = math.fsum(parts) if all(map(math.isfinite, parts)) else math.inf
        return LastIterate(
            steps, float(np.ldexp(rate_sum, power)), float(scale * (weighed / rate_sum)), float(scale * last)
        )


def check(rates: np.ndarray, squares: np.ndarray) -> None:
    """Raise ValueError, naming the first step (from 0) whose numbers are none of a rate and of a square."""
    if rates.shape != squares.shape or rates.ndim != 1:
        raise ValueError(f"{rates.shape} rates and {squares.shape} squares: expected one of each a step")
    for words, values, wrong in (
        ("rate", rates, ~(np.isfinite(rates) & (rates >= 0))),
        ("square of the gradient", squares, (rates > 0) & ~(np.isfinite(squares) & (squares >= 0))),
    ):
        if wrong.any():
            step = int(np.argmax(wrong))
            raise ValueError(f"the {words} of step {step} is {values[step]:g}; expected a finite number, 0 or more")


def horizons(count: int, most: int = 64) -> Sequence[int]:
    """At most so many of the numbers 1..count, evenly spaced in their logarithms, the last among them."""
    if count <= most:
        return range(1, count + 1)
    return np.unique(np.geomspace(1, count, most).round().astype(int)).tolist()


def best_factor(first: float, others: float) -> float | None:
    """sqrt(A / B), the factor on all rates at which the bound is least; None where no gradient leaves none."""
    return math.sqrt(first / others) if others > 0 else None

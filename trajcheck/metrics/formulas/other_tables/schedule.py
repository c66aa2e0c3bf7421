"""The last-iterate bound along a run (metrics/last_iterate.py): f(x_T) - f(x*) at some steps T, and what bounds it.

Letters: x_1 the iterate of the first step, D = |x_1 - x*|, S the sum of the rates from there up to T.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.quantity import LENGTH, LOSS, NONE, RATE, SCHEDULE, given, quantity

SOURCE = "Defazio et al., arXiv 2310.07831; Schaipp et al., arXiv 2501.18965"
UNDETERMINED = "the gap is as near to the bound as its resolution, or two of its standard errors"

given("first_step", SCHEDULE, formula="the step whose iterate is x_1", unit=NONE, range=">= 0", integer=True)
given("distance", SCHEDULE, formula="D = |x_1 - x*|", unit=LENGTH, range=">= 0", source=SOURCE)
given("rate_sum", SCHEDULE, formula="S, the sum of the rates of all steps up to T", unit=RATE, range="> 0", power=0)


@quantity(SCHEDULE, formula="D^2 / (2 S)", unit=LOSS, range=">= 0", power=0, source=SOURCE)
def distance_term(distance: Column, rate_sum: Column) -> Column:
    """D^2 / (2 S), >= 0: what the rates were too small for. Undefined where D, or a rate, is not known."""
    return (distance * distance).over(2 * rate_sum, "all rates are 0")


given(
    *("gradient_term", SCHEDULE),
    formula="sum of eta^2 |g|^2 / (2 S): what the rates were too large for",
    unit=LOSS,
    range=">= 0",
    power=2,
    source=SOURCE,
)
given(
    *("last_term", SCHEDULE),
    formula="1/2 sum over k < T of eta_k / S_{k+1} times the sum of eta^2 |g|^2 from k on / S_k, S_k the sum of the "
    "rates from k on: for the last iterate in the place of an average",
    unit=LOSS,
    range=">= 0",
    power=2,
    source=SOURCE,
)


@quantity(
    SCHEDULE,
    formula="distance_term + gradient_term + last_term: no convex f has a larger gap",
    unit=LOSS,
    range=">= 0",
    power=None,
    source=SOURCE,
)
def bound(distance_term: Column, gradient_term: Column, last_term: Column) -> Column:
    """The sum of the three terms, >= 0: what f(x_T) - f(x*) is at most, for subgradient steps on a convex f. Undefined
    where one of them is."""
    return distance_term + gradient_term + last_term


given("loss_gap", SCHEDULE, formula="f(x_T; z) - f(x*; z), as measured", unit=LOSS, source=SOURCE)
given("loss_gap_resolution", SCHEDULE, formula="its resolution", unit=LOSS, range="> 0")


@quantity(SCHEDULE, formula="loss_gap / bound: how much of it is met", unit=NONE, power=None)
def bound_share(loss_gap: Column, bound: Column) -> Column:
    """loss_gap / bound, at most 1 where the bound holds; undefined where the bound is 0."""
    return loss_gap.over(bound, "the bound is 0")


@quantity(SCHEDULE, formula="1 where the gap is no more than the bound, 0 where it is more", unit=NONE, range="0 or 1")
def held(loss_gap: Column, bound: Column, loss_gap_error: Column) -> Column:
    """1 or 0; undefined where gap and bound are within the gap's resolution, and two standard errors over batches
    (`loss_gap_error` is the larger), of one another, and where one batch alone tells of the gap."""
    room = bound - loss_gap
    decided = lift(lambda value, error: (value >= 0).astype(np.float64) + 0 * error, room, loss_gap_error)
    return decided.except_where(np.abs(room.values) <= loss_gap_error.values, UNDETERMINED)


@quantity(
    SCHEDULE,
    formula="sqrt(distance_term / (gradient_term + last_term)): the factor on all rates at which the bound is least",
    unit=NONE,
    range=">= 0",
    power=-1,
    source=SOURCE,
)
def rate_factor(distance_term: Column, gradient_term: Column, last_term: Column) -> Column:
    """sqrt(A / B), A the first term and B the two others, >= 0: above 1 larger rates have a smaller bound. Undefined
    where all gradients are 0."""
    return distance_term.over(gradient_term + last_term, "all gradients are 0").sqrt()


@quantity(SCHEDULE, formula="the bound with that factor", unit=LOSS, range=">= 0", source=SOURCE)
def best_bound(distance_term: Column, gradient_term: Column, last_term: Column) -> Column:
    """2 sqrt(A B), >= 0, at most the bound."""
    return 2.0 * (distance_term.sqrt() * (gradient_term + last_term).sqrt())


given(
    *("theorem", SCHEDULE),
    formula="1 where the steps are those that the theorem speaks of, as far as records tell, 0 where they are not: "
    "summary.json says why",
    unit=NONE,
    range="0 or 1",
)

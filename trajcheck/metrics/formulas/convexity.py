"""Convexity along the path (TZC, arXiv 2407.01825, and its v1).

Letters: f(x; z) the loss on sample z, g_t = grad f(x_t; z_t), y = x_{t-1} or a reference x*, w_t the weight of a row.
Everything is a function of columns, one value a row; a row that lacks an operand is undefined for that operand's
reason.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.averaging import Averaging
from trajcheck.metrics.columns import Column, running_sum, sum_error, weights_of
from trajcheck.metrics.quantity import LOSS, NONE, REFERENCES, STEPS, given, quantity
from trajcheck.metrics.quotients import resolved_quotient, rows_bound
from trajcheck.metrics.resolution import Rounding, resolution, terms_apart
from trajcheck.metrics.weights import Weights

#: Among the columns, the resolution of convexity_den, and what its errors for the choice of rows reach; no report shows
#: them.
DEN_RESOLUTION, DEN_ROWS_BOUND = "den_resolution", "den_rows_bound"

BOTH = (STEPS, REFERENCES)

given(
    *("loss", REFERENCES),
    operand="loss_at_row",
    formula="f(x_t; z): replayed, else as recorded",
    unit=LOSS,
    symbol="f(x_t; z)",
)
given(
    *("loss_ref", REFERENCES),
    formula="f(x*; z)",
    unit=LOSS,
    symbol="f(x*; z)",
    source="TZC",
    family="convexity",
    chart=(16, "loss at x*"),
)


@quantity(
    *BOTH,
    formula="f(x_t; z) - f(y; z) - <g_t, x_t - y>; convex: at most 0",
    unit=LOSS,
    source="TZC",
    family="convexity",
    chart={STEPS: (14, "convexity gap to x_{t−1}; convex: ≤ 0"), REFERENCES: (7, "convexity gap; convex: ≤ 0")},
)
def inst_gap(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """inst_gap_t(y) = f(x_t; z) - f(y; z) - <grad f(x_t; z), x_t - y>, in units of the loss.

    Convex f: <= 0. Positive values prove that f is not convex between x_t and y. All three terms are of one sample and
    one evaluator. The sign means nothing where |gap| <= gap_resolution. Source: TZC.
    """
    return loss_at_x - loss_at_y - grad_dot_y


@quantity(
    *BOTH,
    formula="about 3 r eps (|f(x_t; z)| + |f(y; z)| + |<g_t, x_t - y>|), r the rounding that a second precision shows "
    "on rows of about this loss, and at least 4 eps (|f(x_t; z)| + |f(y; z)|): below it the gap has no certain sign",
    unit=LOSS,
    range="> 0",
    family="convexity",
)
def gap_resolution(
    loss_at_x: Column,
    loss_at_y: Column,
    grad_dot_y: Column,
    second_loss_at_x: Column,
    second_loss_at_y: Column,
    second_grad_dot_y: Column,
    rounding: Rounding,
) -> Column:
    """The resolution of inst_gap, as metrics/resolution.py says, > 0, in units of the loss: below it the gap has no
    certain sign. Its scale is |f(x)| + |f(y)| + |<g, x - y>|, and it is at least c eps (|f(x)| + |f(y)|), c = 4."""
    losses = abs(loss_at_x) + abs(loss_at_y)
    gap, second = loss_at_x - loss_at_y - grad_dot_y, second_loss_at_x - second_loss_at_y - second_grad_dot_y
    apart = terms_apart((loss_at_x, second_loss_at_x), (loss_at_y, second_loss_at_y), (grad_dot_y, second_grad_dot_y))
    return resolution(gap, second, apart, losses + abs(grad_dot_y), losses, loss_at_x, rounding)


@quantity(
    *BOTH,
    formula="weighted mean of inst_gap up to t",
    unit=LOSS,
    source="TZC",
    family="convexity",
    chart={STEPS: (15, "its average"), REFERENCES: (8, "its average")},
)
def avg_gap(inst_gap: Column, weights: Weights, averaging: Averaging) -> Column:
    """sum_{i<=t} w_i gap_i / sum_{i<=t} w_i. The authors' code restarts it each epoch; `averaging` says whether this
    does."""
    return averaging.mean(inst_gap, weights)


@quantity(
    *BOTH,
    formula="exponential mean of inst_gap over the steps, beta .99, debiased",
    unit=LOSS,
    source="TZC",
    family="convexity",
    chart={STEPS: (16, "its exponential average"), REFERENCES: (9, "its exponential average")},
)
def exp_gap(inst_gap: Column, steps: np.ndarray, averaging: Averaging) -> dict[str, Column]:
    """m_t / (1 - beta^n), m <- beta^delta m + (1 - beta^delta) gap_t, beta = .99, delta the steps since the row before,
    n their sum. The authors' code does not divide, and logs .9999 too."""
    return averaging.exponential(inst_gap, steps)


@quantity(
    *BOTH,
    formula="running sum of w <g, x - y>, over the rows of convexity_den where there are any",
    unit=LOSS,
    source="TZC",
    family="convexity",
    of_tensor=True,
    optional=("loss_at_x", "loss_at_y"),
    chart={STEPS: (18, "its numerator"), REFERENCES: (5, "its numerator")},
)
def convexity_num(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i <g_i, x_i - y>, over the rows of convexity_den where there are any, else over all with
    gradients."""
    return running_sum(of_convexity_terms(loss_at_x, loss_at_y, grad_dot_y), weights)


@quantity(
    *BOTH,
    formula="running sum of w (f(x; z) - f(y; z))",
    unit=LOSS,
    source="TZC",
    family="convexity",
    chart={STEPS: (19, "its denominator"), REFERENCES: (6, "its denominator")},
)
def convexity_den(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, weights: Weights) -> Column:
    """sum_{i<=t} w_i (f(x_i; z_i) - f(y; z_i)), over the rows that have a gradient too."""
    return running_sum(convexity_terms(loss_at_x, loss_at_y, grad_dot_y), weights)


@quantity(
    *BOTH,
    formula="convexity_num / convexity_den: at least 1 if convex and the denominator is positive",
    of_means=("convexity_num", "convexity_den"),
    unit=NONE,
    source="TZC",
    family="convexity",
    chart={STEPS: (17, "convexity ratio towards x_{t−1}"), REFERENCES: (4, "convexity ratio num/den")},
)
def convexity_ratio(
    convexity_num: Column, convexity_den: Column, den_resolution: Column, den_rows_bound: Column
) -> Column:
    """num_t / den_t of num = sum_{i<=t} w_i <g_i, x_i - y> and den = sum_{i<=t} w_i (f(x_i; z_i) - f(y; z_i)); any
    sign.

    Convex and den > 0: >= 1; in (0, 1): weakly quasi-convex; < 0: strongly non-convex; a saddle can give 2. With den <
    0 the inequality turns round, so read num and den beside it. Undefined where |den| is not above its resolution, the
    same weighted sum of the resolutions of its terms, or, over thinned records, within three of its errors for the
    choice of rows, widened by Student's t: there the ratio over all steps may be anything. Source: TZC.
    """
    return resolved_quotient(convexity_num, convexity_den, den_resolution, den_rows_bound)


@quantity(
    *BOTH,
    formula="running sum of w times the resolutions of the terms of convexity_den",
    unit=LOSS,
    range="> 0",
    hidden=True,
)
def den_resolution(
    loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column, difference_resolution: Column, weights: Weights
) -> Column:
    """sum_{i<=t} w_i difference_resolution_i, over the rows of convexity_den."""
    return running_sum(difference_resolution.along(convexity_terms(loss_at_x, loss_at_y, grad_dot_y)), weights)


@quantity(
    *BOTH,
    formula="over thinned records 3 convexity_den_rows_se, widened by Student's t; 0 where every step is there",
    unit=LOSS,
    range=">= 0",
    hidden=True,
)
def den_rows_bound(
    loss_at_x: Column,
    loss_at_y: Column,
    grad_dot_y: Column,
    weights: Weights,
    thinned: bool,
    change_missed: Column,
) -> Column:
    """What three of convexity_den's errors for the choice of rows reach."""
    terms = convexity_terms(loss_at_x, loss_at_y, grad_dot_y)
    if not thinned:
        return 0.0 * terms
    return rows_bound(sum_error(terms, weights, change_missed), weights_of(terms, weights))


def convexity_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """f(x; z) - f(y; z) on the rows that have a gradient too: the terms of convexity_den."""
    return (loss_at_x - loss_at_y).along(grad_dot_y)


def of_convexity_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_y: Column) -> Column:
    """<g, x - y> on the rows of convexity_den, where there are any: the terms of convexity_num."""
    terms = convexity_terms(loss_at_x, loss_at_y, grad_dot_y)
    return grad_dot_y.along(terms) if terms.defined.any() else grad_dot_y

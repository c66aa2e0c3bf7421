"""What rsi, lo_lr and the convexity ratio are without the step's own term, and what pure noise gives for them.

Letters: g_t = grad f(x_t; z_t), e_t = x_t - x*, eta_t the learning rate, s the record of cos_skip, at least --skip
steps after t. Towards a later iterate of the same run e_t contains eta_t g_t, so under plain SGD pure noise gives

    rsi_t = eta_t |g_t|^2 / |e_t|^2,    lo_lr_t = eta_t,    convexity_num = sum eta_t |g_t|^2,

whatever the geometry: a schedule prescribed by own samples ends in the rate that was used. x_s - x* holds no such term.
"""

from __future__ import annotations

from trajcheck.metrics.columns import Column, running_sum, sum_error, weights_of
from trajcheck.metrics.formulas.convexity import convexity_terms, of_convexity_terms
from trajcheck.metrics.formulas.secant import AT_REFERENCE, NO_GRADIENT, NotAlong
from trajcheck.metrics.quantity import COUNT, CURVATURE, LOSS, NONE, RATE, REFERENCES, quantity
from trajcheck.metrics.quotients import resolved_quotient, rows_bound
from trajcheck.metrics.weights import Weights

AT_SKIP = "x_s is the reference itself"


@quantity(
    REFERENCES,
    formula="<g_t, x_s - x*> / |x_s - x*|^2: rsi without the step's own term",
    unit=CURVATURE,
    family="secant",
    of_tensor=True,
    when="own",
)
def rsi_skip(grad_dot_skip: Column, skip_sq: Column) -> Column:
    """<g_t, x_s - x*> / |x_s - x*|^2, any sign, in loss / length^2. Undefined where x_s = x*, and where cos_skip is."""
    return grad_dot_skip.over(skip_sq, AT_SKIP)


@quantity(
    REFERENCES,
    formula="eta_t |g_t|^2 / |e_t|^2: what pure noise gives for rsi; plain SGD",
    unit=CURVATURE,
    range=">= 0",
    power=2,
    family="secant",
    when="own",
)
def rsi_floor(floor_lr: Column, eta_squares_to_ref: Column, grad_sq: Column, ref_sq: Column) -> Column:
    """eta_t |g_t|^2 / |e_t|^2, >= 0, in loss / length^2. Undefined where cos_floor is, and where x_t = x*."""
    return (floor_lr * grad_sq).along(eta_squares_to_ref).over(ref_sq, AT_REFERENCE)


@quantity(
    REFERENCES,
    formula="<g_t, x_s - x*> / |g_t|^2: lo_lr without the step's own term; pure noise gives lr for lo_lr, and 0 here",
    unit=RATE,
    family="secant",
    of_tensor=True,
    when="own",
)
def lo_lr_skip(grad_dot_skip: Column, grad_sq: Column, not_along: NotAlong) -> Column:
    """<g_t, x_s - x*> / |g_t|^2, any sign, in length^2 / loss. Undefined where g_t = 0, where cos_skip is, and for
    momentum and Adam, as lo_lr."""
    return grad_dot_skip.over(grad_sq, NO_GRADIENT).except_where(*not_along)


@quantity(
    REFERENCES,
    formula="running sum of w <g, x_s - x*>: convexity_num without the steps' own terms",
    unit=LOSS,
    family="convexity",
    of_tensor=True,
    optional=("loss_at_x", "loss_at_y"),
    when="own",
)
def convexity_num_skip(loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column, skip_weights: Weights) -> Column:
    """sum_{i<=t} w_i <g_i, x_{s(i)} - x*>, over the rows that have losses where there are any. Undefined where cos_skip
    is."""
    return running_sum(of_convexity_terms(loss_at_x, loss_at_y, grad_dot_skip), skip_weights)


@quantity(
    REFERENCES,
    formula="eta |g|^2, summed as convexity_num: what pure noise gives for it; plain SGD",
    unit=LOSS,
    range=">= 0",
    power=2,
    family="convexity",
    when="own",
)
def convexity_num_floor(
    floor_lr: Column, eta_squares_to_ref: Column, grad_sq: Column, floor_weights: Weights
) -> Column:
    """sum_{i<=t} w_i eta_i |g_i|^2, >= 0, in units of the loss. Undefined where cos_floor is."""
    return running_sum((floor_lr * grad_sq).along(eta_squares_to_ref), floor_weights)


@quantity(
    REFERENCES,
    formula="running sum of w (f(x; z) - f(x*; z)) on the rows and with the weights of convexity_num_skip",
    unit=LOSS,
    family="convexity",
    when="own",
)
def convexity_den_skip(loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column, skip_weights: Weights) -> Column:
    """sum_{i<=t} w_i (f(x_i; z_i) - f(x*; z_i)): that of convexity_ratio_skip. Undefined where cos_skip is."""
    return running_sum(convexity_terms(loss_at_x, loss_at_y, grad_dot_skip), skip_weights)


@quantity(
    REFERENCES,
    formula="convexity_num_skip / convexity_den_skip",
    unit=NONE,
    family="convexity",
    when="own",
)
def convexity_ratio_skip(
    convexity_num_skip: Column, convexity_den_skip: Column, skip_den_resolution: Column, skip_den_rows_bound: Column
) -> Column:
    """sum w_i <g_i, x_{s(i)} - x*> / sum w_i (f(x_i; z_i) - f(x*; z_i)), any sign: the convexity ratio without the
    steps' own terms. Undefined where |den| is not above its resolution or, over thinned records, within three of
    its errors for the choice of rows, widened by Student's t, and where cos_skip is."""
    return resolved_quotient(convexity_num_skip, convexity_den_skip, skip_den_resolution, skip_den_rows_bound)


@quantity(
    REFERENCES,
    formula="running sum of w times the resolutions of the terms of convexity_den_skip",
    unit=LOSS,
    range="> 0",
    hidden=True,
    when="own",
)
def skip_den_resolution(
    loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column, difference_resolution: Column, skip_weights: Weights
) -> Column:
    """sum_{i<=t} w_i difference_resolution_i, over the rows of convexity_den_skip."""
    return running_sum(difference_resolution.along(convexity_terms(loss_at_x, loss_at_y, grad_dot_skip)), skip_weights)


@quantity(
    REFERENCES,
    formula="over thinned records 3 convexity_den_skip_rows_se, widened by Student's t; 0 where every step is there",
    unit=LOSS,
    range=">= 0",
    hidden=True,
    when="own",
)
def skip_den_rows_bound(
    loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column, skip_weights: Weights, thinned: bool
) -> Column:
    """What three of convexity_den_skip's errors for the choice of rows reach."""
    terms = convexity_terms(loss_at_x, loss_at_y, grad_dot_skip)
    if not thinned:
        return 0.0 * terms
    return rows_bound(sum_error(terms, skip_weights), weights_of(terms, skip_weights))


@quantity(
    REFERENCES,
    formula="a term of convexity_num_skip",
    unit=LOSS,
    hidden=True,
    optional=("loss_at_x", "loss_at_y"),
    when="own",
)
def skip_num_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column) -> Column:
    """<g_i, x_s - x*>, on the rows of convexity_den_skip where there are any, else on all with gradients."""
    return of_convexity_terms(loss_at_x, loss_at_y, grad_dot_skip)


@quantity(REFERENCES, formula="a term of convexity_den_skip", unit=LOSS, hidden=True, when="own")
def skip_den_terms(loss_at_x: Column, loss_at_y: Column, grad_dot_skip: Column) -> Column:
    """f(x_i; z) - f(x*; z)."""
    return convexity_terms(loss_at_x, loss_at_y, grad_dot_skip)


@quantity(REFERENCES, formula="what those terms weigh", unit=COUNT, range=">= 0", hidden=True, when="own")
def skip_terms_weights(skip_num_terms: Column, skip_weights: Weights) -> Column:
    """w_i on the rows of skip_num_terms."""
    return weights_of(skip_num_terms, skip_weights)

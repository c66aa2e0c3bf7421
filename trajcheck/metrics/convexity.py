"""Convexity along the path (TZC, arXiv 2407.01825, and its v1).

Letters: f(x; z) the loss on sample z, g_t = grad f(x_t; z_t), y = x_{t-1} or a reference x*, w_t the weight of a row.
Everything is a function of columns, one value a row; a row that lacks an operand is undefined for that operand's
reason.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.averaging import Averaging
from trajcheck.metrics.columns import Column, running_sum

#: c in the resolution c eps (|f(x)| + |f(y)|) of a difference of two losses. On the sample runs, float32 replays
#: differ from float64 ones by 0.3 of that unit in the median and by 2.1 at most, gaps and differences of losses alike.
RESOLUTION_FACTOR = 4.0

#: The resolution of convexity_den among the columns; no report shows it.
DEN_RESOLUTION = "den_resolution"


def inst_gap(loss: Column, loss_at_y: Column, grad_dot: Column) -> Column:
    """inst_gap_t(y) = f(x_t; z) - f(y; z) - <grad f(x_t; z), x_t - y>, in units of the loss.

    Convex f: <= 0. Positive values prove that f is not convex between x_t and y. All three terms are of one sample and
    one evaluator. The sign means nothing where |gap| <= gap_resolution. Source: TZC.
    """
    return loss - loss_at_y - grad_dot


def gap_resolution(loss: Column, loss_at_y: Column, epsilon: float) -> Column:
    """c eps (|f(x)| + |f(y)|), c = RESOLUTION_FACTOR: below it a difference of two losses has no certain sign.

    `epsilon` is the machine epsilon of the replay's dtype. Positive, in units of the loss.
    """
    return RESOLUTION_FACTOR * epsilon * (abs(loss) + abs(loss_at_y))


def convexity_ratio(num: Column, den: Column, den_resolution: Column) -> Column:
    """num_t / den_t of num = sum_{i<=t} w_i <g_i, x_i - y> and den = sum_{i<=t} w_i (f(x_i; z_i) - f(y; z_i)); any
    sign.

    Convex and den > 0: >= 1; in (0, 1): weakly quasi-convex; < 0: strongly non-convex; a saddle can give 2. With den <
    0 the inequality turns round, so read num and den beside it. Undefined where |den| is not above its resolution, the
    same weighted sum of the resolutions of its terms. Source: TZC.
    """
    unresolved = np.abs(den.values) <= den_resolution.values
    return num.over(den.except_where(unresolved, "the denominator is below its resolution"), "the denominator is 0")


def window_sum(windows: Column) -> Column:
    """Sums over all steps i < t, from one term per record: that of the steps since the record before (0 in the first).

    With the term s + <G, x_k - x*>, G = sum g_i and s = sum <g_i, x_i - x_k> over the steps k <= i < t since record k,
    it is window_num_t = sum_{i<t} <g_i, x_i - x*>: the numerator of the convexity ratio over all steps, exact for any
    x*, in units of the loss. With <G, x_t - x*> it is window_num_skip_t, in which no gradient meets an iterate that its
    own sample did not yet enter. Undefined from the first term on that is missing. Source: TZC's numerator.
    """
    values = np.cumsum(windows.values)
    lost = np.flatnonzero(~windows.defined)
    since = str(windows.reasons[lost[0]]) if len(lost) else ""
    reasons = np.where(windows.defined, f"an earlier part of the sum is missing: {since}", windows.reasons)
    return Column(values, np.where(np.isnan(values), reasons, "").astype(object))


def convexity_columns(
    loss: Column,
    loss_at_y: Column,
    grad_dot: Column,
    weights: np.ndarray,
    epsilon: float,
    averaging: Averaging,
) -> dict[str, Column]:
    """All columns towards one y: the gap, its averages (weighted; exponential with beta .99, debiased), the ratio.

    num and den run over the same rows: those with losses where there are any, else num alone over those with gradients.
    The authors' code restarts the average each epoch and does not debias the exponential one; `averaging` says whether
    this does.
    """
    gap = inst_gap(loss, loss_at_y, grad_dot)
    resolution = gap_resolution(loss, loss_at_y, epsilon)
    den_terms = (loss - loss_at_y).along(grad_dot)
    num_terms = grad_dot.along(den_terms) if den_terms.defined.any() else grad_dot
    num, den = running_sum(num_terms, weights), running_sum(den_terms, weights)
    den_resolution = running_sum(resolution.along(den_terms), weights)
    return {
        "inst_gap": gap,
        "gap_resolution": resolution,
        "avg_gap": averaging.mean(gap, weights),
        **averaging.exponential("exp_gap", gap),
        "convexity_num": num,
        "convexity_den": den,
        "convexity_ratio": convexity_ratio(num, den, den_resolution),
        DEN_RESOLUTION: den_resolution,
    }


def shares(gap: Column, resolution: Column, weights: np.ndarray) -> dict[str, float] | None:
    """Weighted shares of rows on which the gap is certainly negative (convex), positive (not), or neither; None if
    none. `resolution` is gap_resolution, or the gap's standard error where that is larger.

    `convex` means that the inequality of convexity holds between x_t and y on this sample, no more.
    """
    here = gap.defined & resolution.defined
    total = weights[here].sum()
    if not total > 0:
        return None
    value, limit, weight = gap.values[here], resolution.values[here], weights[here]
    return {
        "convex": float(weight[value < -limit].sum() / total),
        "not_convex": float(weight[value > limit].sum() / total),
        "undetermined": float(weight[np.abs(value) <= limit].sum() / total),
    }

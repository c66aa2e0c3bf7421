"""Two runs beside one another.

Letters: x_a, x_b two iterates that belong together; a_0, b_0 the first recorded iterates of their runs; d_a, d_b the
last updates (x_t - x_{t-1} in the run of each); x(s) = (1-s) x_a + s x_b the straight line; f the loss on one sample.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.convexity import RESOLUTION_FACTOR


def relative_dist(dist: Column, init_dist_a: Column, init_dist_b: Column) -> Column:
    """|x_a - x_b| / max(|x_a - a_0|, |x_b - b_0|), >= 0, without unit.

    At most 2 for runs of one init: 0 where they went the same way, 1 where one stood still, 2 where they went opposite
    ways. Undefined where both are where they began. Source: EC, arXiv 2107.06608, which shows both distances.
    """
    return dist.over(lift(np.maximum, init_dist_a, init_dist_b), "both runs are where they began")


def displacement_cos(dot: Column, init_sq_a: Column, init_sq_b: Column) -> Column:
    """cos(x_a - a_0, x_b - b_0), in [-1, 1]: whether the two went the same way, each from its own init.

    Undefined where either is where it began.
    """
    return dot.over(init_sq_a.sqrt() * init_sq_b.sqrt(), "one of the runs is where it began")


def update_cos(dot: Column, step_sq_a: Column, step_sq_b: Column) -> Column:
    """cos(d_a, d_b), in [-1, 1], of chords of each run's smallest stride. Undefined where either is 0."""
    return dot.over(step_sq_a.sqrt() * step_sq_b.sqrt(), "one of the runs did not move in its last step")


def above_chord(losses: np.ndarray, s: np.ndarray) -> np.ndarray:
    """h(s) = f(x(s)) - ((1-s) f(x_a) + s f(x_b)), in units of the loss, along the last axis of `losses`.

    `s` rises from 0 to 1. Convex f: <= 0 everywhere; h(0) = h(1) = 0.
    """
    above = losses - ((1 - s) * losses[..., :1] + s * losses[..., -1:])
    above[..., 0] = above[..., -1] = 0.0
    return np.asarray(above)


def barrier(losses: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """max over s of the mean of h(s) over B samples, >= 0, and the standard error of that mean at the s of the maximum.

    `losses` is [rows, B, points], all points of a sample by one evaluator. 0: the loss nowhere rises above the straight
    line between its ends, as in one convex basin. The maximum is over the points alone, and so a lower bound of that
    over the line. The error (of B independent draws) is NaN for B = 1; both are NaN where a loss is. Source: Frankle et
    al., "Linear mode connectivity and the lottery ticket hypothesis", arXiv 1912.05671.
    """
    above = above_chord(losses, s)
    mean = above.mean(axis=1)
    lost = np.isnan(mean).any(axis=-1)
    best = np.where(np.isnan(mean), -np.inf, mean).argmax(axis=-1)
    at_best = np.take_along_axis(above, best[:, None, None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore"):
        height = np.where(lost, np.nan, at_best.mean(axis=-1))
        count = losses.shape[1]
        error = at_best.std(axis=-1, ddof=1) / count**0.5 if count > 1 else np.full(len(losses), np.nan)
    return height, np.where(lost, np.nan, error)


def barrier_resolution(losses: np.ndarray, epsilon: float) -> np.ndarray:
    """c eps 2 max |f| over the line, c = 4, eps that of the replay: below it a barrier is rounding."""
    return np.asarray(RESOLUTION_FACTOR * epsilon * 2 * np.abs(losses).max(axis=(1, 2)))

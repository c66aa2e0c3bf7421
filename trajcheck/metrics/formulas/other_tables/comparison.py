"""Two runs beside one another.

Letters: x_a, x_b two iterates that belong together; a_0, b_0 the first recorded iterates of their runs; d_a, d_b the
last updates (x_t - x_{t-1} in the run of each); x(s) = (1-s) x_a + s x_b the straight line; f the loss on one sample.
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.formulas import convexity, geometry, secant
from trajcheck.metrics.quantity import COMPARE, DECLARED, LENGTH, LOSS, NONE, RATE, REFERENCES, given, quantity
from trajcheck.metrics.resolution import Rounding, resolution

for _run in "ab":
    given(
        *(f"tau_{_run}", COMPARE),
        formula=f"sum of the rates of run {_run} up to x_{_run}",
        unit=RATE,
        range=">= 0",
        power=0,
        source="EC",
        of_sample=False,
    )


@quantity(
    COMPARE,
    formula="|tau_a - tau_b|, under --align time",
    unit=RATE,
    range=">= 0",
    power=0,
    source="EC",
    of_sample=False,
    when="gap",
    chart=(19, "|τ_a − τ_b|"),
)
def tau_gap(tau_a: Column, tau_b: Column) -> Column:
    """|tau_a - tau_b|, >= 0."""
    return abs(tau_a - tau_b)


for _run, _rank in (("a", 7), ("b", 8)):
    given(
        *(f"loss_{_run}", COMPARE),
        formula=f"f(x_{_run}), on the sample of its own step",
        unit=LOSS,
        chart=(_rank, f"loss of {_run}"),
    )


@quantity(
    COMPARE,
    formula="|x_a - x_b|",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    of_tensor=True,
    of_sample=False,
    chart=(1, "|x_a − x_b|"),
)
def dist(dist_sq: Column) -> Column:
    """|x_a - x_b|, >= 0."""
    return dist_sq.sqrt()


@quantity(
    COMPARE,
    formula="|x_a - a_0|, a_0 the first record of run a",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    of_tensor=True,
    of_sample=False,
    chart=(9, "distance of a from its start"),
)
def init_dist_a(init_sq_a: Column) -> Column:
    """|x_a - a_0|, >= 0: from its own run's first record."""
    return init_sq_a.sqrt()


@quantity(
    COMPARE,
    formula="|x_b - b_0|, b_0 the first record of run b",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    of_tensor=True,
    of_sample=False,
    chart=(10, "distance of b from its start"),
)
def init_dist_b(init_sq_b: Column) -> Column:
    """|x_b - b_0|, >= 0: from its own run's first record."""
    return init_sq_b.sqrt()


@quantity(
    COMPARE,
    formula="dist / the larger of init_dist_a and init_dist_b",
    unit=NONE,
    range=">= 0",
    source="EC",
    of_sample=False,
    chart=(2, "relative to the distances from the starts"),
)
def relative_dist(dist: Column, init_dist_a: Column, init_dist_b: Column) -> Column:
    """|x_a - x_b| / max(|x_a - a_0|, |x_b - b_0|), >= 0, without unit.

    At most 2 for runs of one init: 0 where they went the same way, 1 where one stood still, 2 where they went opposite
    ways. Undefined where both are where they began. Source: EC, arXiv 2107.06608, which shows both distances.
    """
    return dist.over(lift(np.maximum, init_dist_a, init_dist_b), "both runs are where they began")


@quantity(
    COMPARE,
    formula="cos(x_a - a_0, x_b - b_0)",
    unit=NONE,
    range="[-1, 1]",
    of_tensor=True,
    of_sample=False,
    chart=(3, "cosine of the displacements"),
)
def displacement_cos(displacement_dot: Column, init_sq_a: Column, init_sq_b: Column) -> Column:
    """cos(x_a - a_0, x_b - b_0), in [-1, 1]: whether the two went the same way, each from its own init.

    Undefined where either is where it began.
    """
    return displacement_dot.over(init_sq_a.sqrt() * init_sq_b.sqrt(), "one of the runs is where it began")


@quantity(
    COMPARE,
    name="update_cos",
    formula="cos(d_a, d_b), of the last steps",
    unit=NONE,
    range="[-1, 1]",
    of_tensor=True,
    of_sample=False,
    chart=(4, "cosine of the last steps"),
)
def cos_of_updates(step_dot: Column, step_sq_a: Column, step_sq_b: Column) -> Column:
    """cos(d_a, d_b), in [-1, 1], of chords of each run's smallest stride. Undefined where either is 0."""
    return step_dot.over(step_sq_a.sqrt() * step_sq_b.sqrt(), "one of the runs did not move in its last step")


#: What each run is measured for towards the other's last iterate: columns of references.csv, and for the page's chart
#: the rank among those of compare.csv and the words, {} being the run.
SIDE = {
    "ref_dist": (geometry, 0, ""),
    "rsi": (secant, 15, "rsi of {}"),
    "eb": (secant, 17, "eb of {}"),
    "cos": (secant, 11, "cosine of {}'s gradient towards the end of {}"),
    "inst_gap": (convexity, 0, ""),
    "gap_resolution": (convexity, 0, ""),
    "convexity_num": (convexity, 0, ""),
    "convexity_den": (convexity, 0, ""),
    "convexity_ratio": (convexity, 13, "convexity ratio of {} towards the end of {}"),
}

for _at, (_run, _other) in enumerate((("a", "b"), ("b", "a"))):
    for _name, (_module, _rank, _words) in SIDE.items():
        _one = DECLARED[_module.__name__][REFERENCES, _name]
        given(
            *(f"{_name}_{_run}", COMPARE),
            formula=f"{_name} of run {_run}, x* being the last iterate of run {_other}",
            unit=_one.unit,
            range=_one.range,
            source=_one.source,
            of_sample=_one.of_sample,
            chart=(_rank + _at, _words.format(_run, _other)),
        )

given(
    *("barrier", COMPARE),
    formula="the most that the loss at a point of the line rises above the chord between the losses at its ends",
    unit=LOSS,
    range=">= 0",
    source="Frankle et al., arXiv 1912.05671",
    when="line",
    chart=(5, "height of the loss on the line"),
)
given(
    *("barrier_resolution", COMPARE),
    formula="3 r eps times twice the largest |f| on the line, r the rounding that a second precision showed on pairs "
    "of about this loss, and at least 8 eps times the largest |f|: a barrier below it is rounding",
    unit=LOSS,
    range="> 0",
    when="line",
    chart=(6, "its resolution"),
)
given(
    *("line_", COMPARE),
    formula="f at x_a (line_0), a fraction s of the way (line_0.1, ...), at x_b (line_1)",
    unit=LOSS,
    symbol="line_s",
    when="line",
)


def above_chord(losses: np.ndarray, s: np.ndarray) -> np.ndarray:
    """h(s) = f(x(s)) - ((1-s) f(x_a) + s f(x_b)), in units of the loss, along the last axis of `losses`.

    `s` rises from 0 to 1. Convex f: <= 0 everywhere; h(0) = h(1) = 0.
    """
    above = losses - ((1 - s) * losses[..., :1] + s * losses[..., -1:])
    above[..., 0] = above[..., -1] = 0.0
    return np.asarray(above)


def barrier_height(losses: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def barrier_resolution(losses: np.ndarray, second: np.ndarray, s: np.ndarray, rounding: Rounding) -> np.ndarray:
    """The resolution of a barrier, as metrics/resolution.py says, with the scale 2 max |f| over the line, > 0.

    `losses` and `second`, those in the second precision, are [rows, B, points]; `second` is NaN on rows that were not
    evaluated in it. Its difference is the largest of mean h(s) in the one and in the other. Nearest are the rows of
    about the loss at x_a.
    """
    scale = _plain(2 * np.abs(losses).max(axis=(1, 2)))
    second = np.where(np.isfinite(losses) & np.isfinite(second), second, np.nan)
    losses = np.where(np.isfinite(losses), losses, np.nan)
    apart = np.abs((above_chord(losses, s) - above_chord(second, s)).mean(axis=1)).max(axis=-1)
    terms = 2 * np.abs(losses - second).mean(axis=1).max(axis=-1)  # at s, and on the chord between the ends
    zero, start = _plain(np.zeros(len(losses))), _plain(losses[:, :, 0].mean(axis=1))
    return resolution(zero, _plain(apart), _plain(terms), scale, scale, start, rounding).values


def _plain(values: np.ndarray) -> Column:
    return Column(values, np.where(np.isfinite(values), "", "not finite").astype(object))

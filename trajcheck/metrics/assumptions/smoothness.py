"""Smoothness of the gradient, and what the descent lemma makes of it."""

from __future__ import annotations

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Judged, with_error
from trajcheck.metrics.assumptions.noise import NO_NOISE
from trajcheck.metrics.assumptions.secant import OF_ITS_OWN
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import REFERENCES, STEPS


@assumption(
    REFERENCES,
    STEPS,
    name="smooth",
    title="L-smoothness between x_t and y",
    formula="|grad f(x_t; z) - grad f(y; z)| <= L |x_t - y|",
    constants={"L": "|grad f(x_t; z) - grad f(y; z)| / |x_t - y|"},
    extreme="largest",
    source="TZC",
)
def smooth(inst_smooth: Column) -> Judged:
    """A constant alone, from pairs of points on one sample, whose noise is the same at both where it is linear in x."""
    return Judged(inst_smooth, noise=0.0, unjudged=OF_ITS_OWN)


@assumption(
    STEPS,
    name="descent",
    title="the descent lemma with L = max_smooth so far",
    formula="f(x_t; z) - f(x_{t-1}; z) <= <grad f(x_{t-1}; z), d_t> + L |d_t|^2 / 2",
    constants={
        "L": "2 (f(x_t; z) - f(x_{t-1}; z) - <grad f(x_{t-1}; z), d_t>) / |d_t|^2, the L with which it would hold"
    },
    extreme="largest",
    source="TZC",
)
def descent(
    descent_smoothness: Column,
    descent_excess: Column,
    descent_excess_resolution: Column,
    descent_noise: Column,
    sample: str,
    one_batch: bool,
    descent_excess_se: Column | None = None,
) -> Judged:
    """The margin is the change of the loss less what is promised. On own samples the promise is of the batch that made
    the step, and the change is that of the next one: noise alone gives 2 / eta for L under plain SGD. On one sample
    noise that is linear in x cancels."""
    noise = 0.0 if sample != "own" else NO_NOISE if one_batch else descent_noise
    margin = descent_excess.along(descent_smoothness)
    return Judged(descent_smoothness, margin, with_error(descent_excess_resolution, descent_excess_se), noise)

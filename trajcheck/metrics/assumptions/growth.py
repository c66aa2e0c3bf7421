"""Growth above a reference x*: Polyak-Lojasiewicz and quadratic growth (Karimi et al., arXiv 1608.04636).

Letter: D_t = f(x_t; z) - f(x*; z).
"""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Judged, with_error
from trajcheck.metrics.assumptions.noise import NO_NOISE, of_inner_product
from trajcheck.metrics.columns import Column, constant
from trajcheck.metrics.formulas.above import NOT_ABOVE
from trajcheck.metrics.quantity import REFERENCES

SOURCE = "Karimi et al., arXiv 1608.04636"
MINIBATCH = (
    "the square of a minibatch's gradient holds that of its noise, tr Sigma / B, so that it gives no constant of f; "
    "with one batch in all records, or over several probe batches, there is one"
)


@assumption(
    REFERENCES,
    name="pl",
    title="the Polyak-Lojasiewicz inequality towards x*",
    formula="|grad f(x_t)|^2 >= 2 mu (f(x_t) - f(x*)), mu > 0, where f(x_t) > f(x*)",
    constants={"mu": "|grad f(x_t)|^2 / (2 (f(x_t) - f(x*)))"},
    extreme="smallest",
    source=SOURCE,
)
def pl(
    pl: Column,
    grad_square: Column,
    excess: Column,
    difference_resolution: Column,
    sample: str,
    one_batch: bool,
    grad_square_se: Column | None = None,
    excess_se: Column | None = None,
) -> Judged:
    """On rows with D_t above its resolution. Over probe batches undetermined where |grad f|^2 is, and never violated;
    where the gradient is known exactly violated where that is 0."""
    if not one_batch:
        return Judged(MINIBATCH, noise=MINIBATCH, unjudged=MINIBATCH)
    limit = with_error(difference_resolution, excess_se)
    above = excess.except_where(excess.values <= limit.values, NOT_ABOVE)
    if sample == "probe" and grad_square_se is not None:
        return Judged(pl, least(grad_square).along(above), grad_square_se, 0.0)
    margin = Column(np.where(grad_square.values == 0, 1.0, -grad_square.values), grad_square.reasons).along(above)
    return Judged(pl, margin, constant(0.0, len(pl)), NO_NOISE)


def least(grad_true_sq: Column) -> Column:
    """A margin of |grad f|^2 > 0: it cannot be negative, though its estimate can."""
    return Column(-np.fmax(grad_true_sq.values, 0.0), grad_true_sq.reasons)


@assumption(
    REFERENCES,
    name="qg",
    title="quadratic growth above x*",
    formula="f(x_t; z) - f(x*; z) >= mu |x_t - x*|^2 / 2, mu > 0",
    constants={"mu": "2 (f(x_t; z) - f(x*; z)) / |x_t - x*|^2"},
    extreme="smallest",
    source=SOURCE,
)
def qg(
    qg: Column,
    excess: Column,
    difference_resolution: Column,
    sample: str,
    one_batch: bool,
    excess_se: Column | None = None,
    rsi_floor: Column | None = None,
) -> Judged:
    """The margin is -D_t. Noise that is linear in x is D_t = <g_t, e_t>: twice that of rsi."""
    noise = of_inner_product(sample, one_batch, rsi_floor)
    noise = 2.0 * noise if isinstance(noise, Column) else noise
    return Judged(qg, (-excess).along(qg), with_error(difference_resolution, excess_se), noise)

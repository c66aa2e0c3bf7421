"""The alpha-beta condition towards a reference x* (Islamov et al., arXiv 2410.12455)."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import NO_NOISE, Entry, with_error
from trajcheck.metrics.assumptions.fitted import ahead, fitted_rows, refused, why_nowhere
from trajcheck.metrics.columns import Column
from trajcheck.metrics.fits.alpha_beta import AlphaBeta, Frontier
from trajcheck.metrics.fits.alpha_beta import alpha_beta as fitted_pair
from trajcheck.metrics.fits.envelope import NoFit
from trajcheck.metrics.quantity import REFERENCES
from trajcheck.metrics.weights import Weights

NAMES = ("alpha", "beta", "beta_min")
NOT_ABOVE = "f(x_t; z) is not above f(x*; z) by more than their resolution"
NO_BEST = "the larger beta, the smaller is beta / (alpha - beta): no pair is the best one"


@assumption(
    REFERENCES,
    name="alpha_beta",
    title="the alpha-beta condition",
    formula="<g_t, e_t> >= alpha (f(x_t; z) - f(x*; z)) - beta (f(x_t; z) - f_inf)",
    constants={
        "alpha": "alpha of the pair of least beta / (alpha - beta)",
        "beta": "beta of that pair",
        "beta_min": "the beta above which some alpha > beta meets all rows",
    },
    source="Islamov et al., arXiv 2410.12455",
)
def alpha_beta(
    grad_dot_ref: Column,
    excess: Column,
    difference_resolution: Column,
    gap_resolution: Column,
    ref_above_floor: Column,
    weights: Weights,
    steps: np.ndarray,
    inst_gap_se: Column | None = None,
) -> dict[str, Entry]:
    """The pair is fitted to the rows with D_t above its resolution. On the second half of the steps all rows are
    judged, those with D_t at most 0 too."""
    floor = ref_above_floor
    above = _above(grad_dot_ref, excess, difference_resolution, floor)
    here = excess.along(floor).along(grad_dot_ref).defined
    resolution = with_error(gap_resolution, inst_gap_se)

    def pair(rows: np.ndarray) -> AlphaBeta:
        rows = rows & above.defined
        return fitted_pair(grad_dot_ref.values[rows], excess.values[rows], floor.values[rows])

    def fit(rows: np.ndarray) -> np.ndarray:
        found = pair(rows)
        if not np.isfinite(found.alpha):
            raise NoFit(NO_BEST)
        return np.array(found[:2])

    def margin(constants: np.ndarray) -> tuple[Column, Column]:
        alpha, beta = (float(each) for each in constants)
        return (alpha - beta) * excess - beta * floor - grad_dot_ref, max(alpha, 1.0) * resolution

    if not above.defined.any():
        return refused(NAMES, why_nowhere(excess, above), above.defined)
    try:
        found = pair(here)
    except NoFit as reason:
        return refused(NAMES, str(reason), above.defined)
    verdict = ahead(fit, margin, here, weights.of(here), steps)
    why = {"alpha": NO_BEST, "beta": NO_BEST}
    return fitted_rows(NAMES, found[:3], found.interval, [NO_NOISE] * 3, verdict, above.defined, why)


def alpha_beta_frontier(
    grad_dot_ref: Column, excess: Column, difference_resolution: Column, ref_above_floor: Column
) -> Frontier | None:
    """alpha_max over the same rows, `row` by place in the columns; None where the condition is not fitted."""
    rows = _above(grad_dot_ref, excess, difference_resolution, ref_above_floor).defined
    try:
        found = fitted_pair(grad_dot_ref.values[rows], excess.values[rows], ref_above_floor.values[rows]).frontier
    except NoFit:
        return None
    return found._replace(row=np.flatnonzero(rows)[found.row])


def _above(grad_dot_ref: Column, excess: Column, difference_resolution: Column, ref_above_floor: Column) -> Column:
    """D_t on the rows that bound alpha."""
    above = excess.except_where(excess.values <= difference_resolution.values, NOT_ABOVE)
    return above.along(ref_above_floor).along(grad_dot_ref)

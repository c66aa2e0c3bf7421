"""The alpha-beta condition (Islamov et al., arXiv 2410.12455): for which alpha > beta >= 0 does a whole run meet it?

    c_t >= alpha D_t - beta F_t,    c_t = <g_t, e_t>, D_t = f(x_t; z) - f(x*; z), F_t = f(x_t; z) - f_inf

on the rows with D_t > 0. Each bounds alpha by a line in beta, quasar_t + beta F_t / D_t; the frontier alpha_max(beta)
is the lowest of all lines: concave, in pieces linear, and of slope 1 or more wherever f(x*; z) >= f_inf.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajcheck.metrics.fits.envelope import FEWEST_ROWS, NoFit
from trajcheck.metrics.fits.linear_program import least_envelopes
from trajcheck.metrics.fits.stretches import FEWEST, Interval, drawn, foremost, interval, stretches

#: Of two aims, the least r and then the least p, how little the second weighs.
NEXT = 1e-9


class Frontier(NamedTuple):
    """alpha_max from corner to corner: `beta` [corners], 0 the first, and `alpha` [corners]; up to the next corner, or
    for ever, it rests on the line of `row` [corners], whose slope is `slope` [corners]."""

    beta: np.ndarray
    alpha: np.ndarray
    row: np.ndarray
    slope: np.ndarray

    def at(self, beta: float) -> float:
        """alpha_max(beta), beta >= 0."""
        k = int(np.searchsorted(self.beta, beta, side="right")) - 1
        return float(self.alpha[k] + self.slope[k] * (beta - self.beta[k]))


def frontier(quasar: np.ndarray, slope: np.ndarray) -> Frontier:
    """The lowest of the lines quasar [rows] + beta slope [rows] over beta >= 0, exactly, rows one or more."""
    row = int(np.lexsort((slope, quasar))[0])
    beta, corners = 0.0, []
    while True:
        corners.append((beta, quasar[row] + beta * slope[row], row, slope[row]))
        flatter = np.flatnonzero(slope < slope[row])
        if not len(flatter):
            break
        meets = (quasar[flatter] - quasar[row]) / (slope[row] - slope[flatter])
        first = np.lexsort((slope[flatter], meets))[0]
        beta, row = max(beta, float(meets[first])), int(flatter[first])
    columns = [np.array(each) for each in zip(*corners, strict=True)]
    return Frontier(columns[0], columns[1], columns[2].astype(int), columns[3])


class AlphaBeta(NamedTuple):
    """What a run leaves of the condition.

    `beta_min` >= 0: alpha_max(beta) > beta for every beta above it, and for 0 too where it is 0. Of these pairs `alpha`
    and `beta` are the one of least beta / (alpha - beta): in AB's theorems what is left in the end grows with it, and
    the rate with alpha - beta. It lies on the frontier, at beta = 0 where quasar-convexity holds, and alpha is its
    constant there. Both are inf where a larger beta is always better. `interval` [3]: of alpha, beta and beta_min, None
    below 32 rows; not finite where resamples have no best pair.
    """

    alpha: float
    beta: float
    beta_min: float
    frontier: Frontier
    interval: Interval | None


def alpha_beta(grad_dot_ref: np.ndarray, above: np.ndarray, floor: np.ndarray) -> AlphaBeta:
    """From c_t = `grad_dot_ref` [rows], D_t = `above` [rows] > 0 and F_t - D_t = f(x*; z) - f_inf = `floor` [rows] >=
    0, rows in the order of steps. With f_inf = f(x*) alpha - beta on the frontier is the smallest quasar_t at each
    beta. Raises NoFit, also where no alpha > beta meets all rows."""
    if len(above) < FEWEST_ROWS:
        raise NoFit(f"the fit rests on up to 2 rows: {len(above)} have f(x_t; z) above f(x*; z), 8 are needed")
    if (floor < 0).any():
        raise NoFit("f(x*; z) is below the loss floor, which is none")
    quasar, slope = grad_dot_ref / above, floor / above
    never = (quasar <= 0) & (slope == 0)
    if never.any():
        raise NoFit("no alpha > beta meets all rows: some have <g_t, e_t> <= 0 where f(x*; z) is the loss floor")
    part = stretches(len(above))
    found, ends = _pairs(quasar, slope, np.ones((1, len(above)), dtype=bool))[0], None
    if len(above) >= FEWEST:
        near = foremost(np.ones(len(above)), np.stack([quasar, slope], axis=1), part)
        times = drawn(part[-1] + 1)
        ends = interval(found, _pairs(quasar[near], slope[near], (times > 0)[:, part[near]]))
    alpha, beta, beta_min = (float(each) for each in found)
    return AlphaBeta(alpha, beta, beta_min, frontier(quasar, 1 + slope), ends)


def _pairs(quasar: np.ndarray, slope: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """alpha, beta and beta_min [resamples, 3] of the rows that count [resamples, rows].

    With p = 1 / (alpha - beta) and r = beta / (alpha - beta) a row is quasar_t p + slope_t r >= 1, slope_t = F_t / D_t
    - 1, so that the least r, and of that the least p, is a linear program.
    """
    lines = np.stack([quasar, slope], axis=1)
    columns = np.maximum(np.abs(lines).max(axis=0), np.finfo(np.float64).tiny)
    means = np.tile([NEXT, 1.0], (len(counts), 1))
    p, r = (least_envelopes(lines / columns, np.ones(len(lines)), means, counts) / columns).T
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(quasar > 0, 0.0, -quasar / slope)
        alpha, beta = (1 + r) / p, np.where(r == 0, 0.0, r / p)
    return np.stack([alpha, beta, np.where(counts, least, 0.0).max(axis=1)], axis=1)

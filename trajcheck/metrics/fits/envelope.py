"""Upper envelopes c . u_t >= y_t, c >= 0, over all rows, of the least weighted excess: (L0, L1), (H0, H1), ABC.

Letters: y_t [rows] what is bounded, u_t [rows, k] the regressors, >= 0, w_t [rows] the weights, c [k] the constants. A
regressor of ones belongs to the constant that depends on nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajcheck.metrics.fits.linear_program import ROUNDING, least_envelopes
from trajcheck.metrics.fits.stretches import FEWEST, drawn, exchanged, foremost, interval, stretches

#: Rows below which an envelope would rest on nearly all of them.
FEWEST_ROWS = 8
#: Columns that are parallel to this share cannot be told apart.
PARALLEL = 1e-6


class NoFit(Exception):
    """There is no such envelope of these rows; the message says why."""


@dataclass(frozen=True)
class Envelope:
    """`constants` [k], >= 0. `low`, `high` [k]: their intervals, see `interval`; None below 32 rows.

    `explained` in [0, 1]: 1 - E / E_0, E = sum w (c . u - y) / sum w the mean excess of the envelope and E_0 that of
    the constant one, `alone` = max y; 0 where the regressors gain nothing, 1 where all rows lie on the envelope; None
    where the constant one meets every row. It is never below 0 and nearly always above, by chance. So beside it stand,
    from the same fit after stretches of the regressors have changed places against y, `null` [k], the median constants,
    and `null_explained`, the 95% quantile of `explained`: what a regressor that knows nothing of y gains. A common
    trend of both along the run is explained too, and is no proof that one bounds the other.
    """

    constants: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    explained: float | None
    alone: float
    null: np.ndarray | None
    null_explained: float | None
    rows: int


def upper_envelope(y: np.ndarray, regressors: np.ndarray, weights: np.ndarray) -> Envelope:
    """The envelope of `y` [rows] by `regressors` [rows, k] with `weights` [rows] >= 0, rows in the order of steps.

    A row of weight 0 is to lie below like every other. Scaling y, or a column, scales the constants; the order of the
    rows, and cutting a row into several, change nothing but the stretches. Raises NoFit.
    """
    refused = why_not(y, regressors)
    if refused:
        raise NoFit(refused)
    rows = _Rows(y, regressors, weights)
    constants, none = rows.fit()[0], (None, None)
    low, high = interval(constants, rows.fits_of_stretches()) if len(y) >= FEWEST else none
    null, null_explained = rows.null() if len(y) >= FEWEST else none
    explained = rows.explained(constants[None])
    share = None if explained is None else float(explained[0])
    return Envelope(constants, low, high, share, float(y.max()), null, null_explained, len(y))


def why_not(y: np.ndarray, regressors: np.ndarray) -> str:
    """Why these rows have no envelope, or one that says nothing of single constants; '' where they have."""
    if len(y) < FEWEST_ROWS:
        return f"{len(y)} rows have all that the fit takes, and it rests on up to {regressors.shape[1]}: 8 are needed"
    if not np.isfinite(regressors).all() or not np.isfinite(y).all():
        return "a value that the fit takes is not finite"
    if (regressors < 0).any():
        return "a regressor is negative"
    largest = regressors.max(axis=0)
    if not (largest > 0).all() or not y.max() > 0:
        return "what is to be bounded, or a regressor, is 0 on all rows"
    if np.linalg.matrix_rank(regressors / largest, tol=PARALLEL * len(y) ** 0.5) < regressors.shape[1]:
        return "the regressors are proportional on all rows, so that their constants cannot be told apart"
    return ""


class _Rows:
    """The rows, with columns and y scaled to be 1 at their largest."""

    def __init__(self, y: np.ndarray, regressors: np.ndarray, weights: np.ndarray) -> None:
        columns, level = regressors.max(axis=0), y.max()
        self.y, self.regressors, self.back = y / level, regressors / columns, level / columns
        self.weights = weights if weights.sum() > 0 else np.ones(len(y))

    def fit(self) -> np.ndarray:
        """c [1, k] of all rows."""
        return self._fit(self.regressors, self.weights @ self.regressors[None], np.ones((1, len(self.y)), dtype=bool))

    def fits_of_stretches(self) -> np.ndarray:
        """c [draws, k] of resamples of the stretches."""
        part = stretches(len(self.y))
        times = drawn(part[-1] + 1)
        sums = [np.bincount(part, self.weights * column) for column in self.regressors.T]
        near = foremost(self.y, self.regressors, part)
        counts = (times > 0)[:, part[near]]
        return self._fit(self.regressors[near], times @ np.stack(sums, axis=1), counts, self.y[near])

    def null(self) -> tuple[np.ndarray, float | None]:
        """Median constants [k], and the 95% quantile of `explained`, after exchanges of the regressors' stretches."""
        regressors = self.regressors[exchanged(len(self.y))]
        sums = np.einsum("r,erk->ek", self.weights, regressors)
        found = self._fit(regressors, sums, np.ones(regressors.shape[:2], dtype=bool))
        explained = self.explained(found, sums)
        return np.median(found, axis=0), None if explained is None else float(np.quantile(explained, 0.95))

    def explained(self, constants: np.ndarray, sums: np.ndarray | None = None) -> np.ndarray | None:
        """1 - E / E_0 of constants [fits, k], `sums` [fits, k] the weighted sums of their regressors."""
        sums = self.weights @ self.regressors if sums is None else sums
        above = 1.0 - float(np.average(self.y, weights=self.weights))
        if above <= ROUNDING:
            return None
        excess = (constants / self.back * sums).sum(axis=1) / self.weights.sum()
        return np.clip(1 - (excess - 1.0 + above) / above, 0.0, 1.0)

    def _fit(
        self, regressors: np.ndarray, sums: np.ndarray, counts: np.ndarray, y: np.ndarray | None = None
    ) -> np.ndarray:
        means = sums / np.maximum(sums.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return least_envelopes(regressors, self.y if y is None else y, means, counts) * self.back

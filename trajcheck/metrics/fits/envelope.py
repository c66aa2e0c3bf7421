"""Upper envelopes c . u_t >= y_t, c >= 0, over all rows, of the least weighted excess: (L0, L1), (H0, H1), ABC.

Letters: y_t [rows] what is bounded, u_t [rows, k] the regressors, >= 0, w_t [rows] the weights, c [k] the constants. A
regressor of ones belongs to the constant that depends on nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajcheck.metrics.fits.linear_program import ROUNDING, least_envelopes
from trajcheck.metrics.fits.stretches import FEWEST, Interval, drawn, exchanged, foremost, interval, stretches

#: Rows below which an envelope would rest on nearly all of them.
FEWEST_ROWS = 8
#: Columns that are parallel to this share cannot be told apart.
PARALLEL = 1e-6


class NoFit(Exception):
    """There is no such envelope of these rows; the message says why."""


class Envelope(NamedTuple):
    """`constants` [k], >= 0, and `alone`, max y, the constant envelope.

    `explained` in [0, 1]: 1 - E / E_0, E = sum w (c . u - y) / sum w the mean excess of the envelope and E_0 that of
    the constant one; 0 where the regressors gain nothing, 1 where all rows lie on the envelope, NaN where the constant
    one meets every row.

    `null` [k] and `null_explained`: the median constants, and the 95% quantile of `explained`, of the same fit after
    stretches of the regressors have changed places against y: what a regressor that knows nothing of y gains, since
    `explained` is never below 0. A common trend of both along the run is explained too; it is no proof that one bounds
    the other. `interval` [k + 1]: of the constants and of `explained`. None and NaN below 32 rows.
    """

    constants: np.ndarray
    alone: float
    explained: float
    null: np.ndarray | None
    null_explained: float
    interval: Interval | None


def upper_envelope(y: np.ndarray, regressors: np.ndarray, weights: np.ndarray) -> Envelope:
    """The envelope of `y` [rows] by `regressors` [rows, k] with `weights` [rows] >= 0, rows in the order of steps.

    A row of weight 0 is to lie below like every other. Scaling y, or a column, scales the constants; the order of the
    rows, and cutting a row into several, change nothing but the stretches. Raises NoFit.
    """
    rows = _Rows(y, regressors, weights)
    constants, explained = rows.fit()
    null, null_explained, ends = None, np.nan, None
    if len(y) >= FEWEST:
        ends = interval(np.append(constants, explained), rows.fits_of_stretches())
        ends.high[-1] = min(ends.high[-1], 1.0)
        null, null_explained = rows.null()
    return Envelope(constants, float(y.max()), explained, null, null_explained, ends)


def envelope_constants(y: np.ndarray, regressors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Those of `upper_envelope` alone [k]. Raises NoFit."""
    return _Rows(y, regressors, weights).fit()[0]


class _Rows:
    """The rows, with columns and y scaled to be 1 at their largest. Raises NoFit where they have no envelope, or one
    that says nothing of single constants."""

    def __init__(self, y: np.ndarray, regressors: np.ndarray, weights: np.ndarray) -> None:
        if len(y) < FEWEST_ROWS:
            raise NoFit(f"the fit rests on up to {regressors.shape[1]} rows: {len(y)} have what it takes, 8 are needed")
        if not np.isfinite(regressors).all() or not np.isfinite(y).all():
            raise NoFit("a value that the fit takes is not finite")
        if (regressors < 0).any():
            raise NoFit("a regressor is negative")
        columns, level = regressors.max(axis=0), y.max()
        if not (columns > 0).all() or not level > 0:
            raise NoFit("what is to be bounded, or a regressor, is 0 on all rows")
        self.y, self.regressors, self.back = y / level, regressors / columns, level / columns
        if np.linalg.matrix_rank(self.regressors, tol=PARALLEL * len(y) ** 0.5) < len(columns):
            raise NoFit("the regressors are proportional on all rows, so that their constants cannot be told apart")
        weights = weights if weights.sum() > 0 else np.ones(len(y))
        self.weights = weights / weights.sum()
        self.mean = float(self.weights @ self.y)

    def fit(self) -> tuple[np.ndarray, float]:
        """c [k] of all rows, and `explained`."""
        sums = (self.weights @ self.regressors)[None]
        found = self._scaled(self.regressors, sums, np.ones((1, len(self.y)), dtype=bool))
        return found[0] * self.back, float(_explained((found * sums).sum(axis=1), self.mean, 1.0)[0])

    def fits_of_stretches(self) -> np.ndarray:
        """c and `explained` [draws, k + 1] of resamples of the stretches."""
        part = stretches(len(self.y))
        times = drawn(part[-1] + 1)
        columns = [np.bincount(part, self.weights * each) for each in (*self.regressors.T, self.y, np.ones(len(part)))]
        *sums, means, mass = (times @ np.stack(columns, axis=1)).T
        near = foremost(self.y, self.regressors, part)
        counts, y = (times > 0)[:, part[near]], self.y[near]
        found = least_envelopes(self.regressors[near], y, _about_one(np.stack(sums, axis=1)), counts)
        level = np.where(counts, y, -np.inf).max(axis=1)
        share = _explained((found * np.stack(sums, axis=1)).sum(axis=1) / mass, means / mass, level)
        return np.column_stack([found * self.back, share])

    def null(self) -> tuple[np.ndarray, float]:
        """Median constants [k], and the 95% quantile of `explained`, after exchanges of the regressors' stretches."""
        regressors = self.regressors[exchanged(len(self.y))]
        sums = np.einsum("r,erk->ek", self.weights, regressors)
        found = self._scaled(regressors, sums, np.ones(regressors.shape[:2], dtype=bool))
        share = _explained((found * sums).sum(axis=1), self.mean, 1.0)
        return np.median(found, axis=0) * self.back, float(np.quantile(share, 0.95))

    def _scaled(self, regressors: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return least_envelopes(regressors, self.y, _about_one(sums), counts)


def _about_one(sums: np.ndarray) -> np.ndarray:
    return sums / np.maximum(sums.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _explained(height: np.ndarray, mean: np.ndarray | float, level: np.ndarray | float) -> np.ndarray:
    """1 - E / E_0 from the envelopes' mean heights [fits], the mean of y and the constant envelope's level."""
    alone = np.asarray(level - mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.clip(1 - (height - mean) / alone, 0.0, 1.0)
    return np.where(alone > ROUNDING, found, np.nan)

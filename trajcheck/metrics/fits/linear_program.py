"""The least upper envelope as a linear program, of many resamples of the same rows at once.

    minimise  m . c   over c >= 0 with  X c >= y on every row that counts

X [rows, k] >= 0 are the regressors, y [rows] what is to lie below, m [k] the weighted means of the regressors: the mean
excess, sum w (X c - y) / sum w, is m . c less a constant. k is 1 to 3, so that the dual simplex method (Lemke, "The
dual method of solving the linear programming problem", Naval Research Logistics Quarterly 1, 1954) takes a handful of
exchanges from c = 0: each is of the row that lies highest above the envelope for one that it rests on, made for all
resamples side by side. scipy.optimize.linprog gives the same (a test). It is not called: importing it takes longer than
all tables of a small report, each call as long as a hundred resamples here, and it lets rows lie 1e-7 above.
"""

from __future__ import annotations

import numpy as np

#: A row lies above the envelope by more than rounding from this share of the largest y.
ROUNDING = 1e-12
#: Exchanges, at most, and coefficients below which a row is none of another's.
MOST, SMALL = 100, 1e-12
#: Numbers that are held at a time [resamples, rows].
AT_ONCE = 1 << 21


def least_envelopes(regressors: np.ndarray, y: np.ndarray, means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """c [resamples, k] >= 0; NaN where no c lies above all rows that count.

    `regressors` [rows, k] >= 0 and `y` [rows], or one a resample: [resamples, rows, k] and [resamples, rows]. `means`
    [resamples, k] >= 0; `counts` [resamples, rows], bool. Columns are to be about 1 at their largest, as is y.
    """
    if not len(means):
        return np.empty((0, regressors.shape[-1]))
    size = max(1, AT_ONCE // max(1, y.shape[-1]))
    parts = []
    for start in range(0, len(means), size):
        part = slice(start, start + size)
        X = regressors[part] if regressors.ndim == 3 else regressors
        parts.append(_solve(X, y[part] if y.ndim == 2 else y[None], means[part], counts[part]))
    return np.concatenate(parts)


def _solve(X: np.ndarray, y: np.ndarray, means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A resample's envelope rests on k inequalities: rows, or c_j >= 0, with which it begins. `held` [resamples, k, k]
    are their left sides, `level` [resamples, k] their right ones."""
    k = means.shape[1]
    held, level = np.tile(np.eye(k), (len(means), 1, 1)), np.zeros(means.shape)
    found, going = np.zeros(means.shape), np.arange(len(means))
    limit = ROUNDING * np.abs(y).max(initial=0.0)
    for _ in range(MOST):
        c = found[going]
        fit = np.matmul(X if X.ndim == 2 else X[going], c[:, :, None])[:, :, 0]
        above = np.where(counts[going], (y if len(y) == 1 else y[going]) - fit, -np.inf)
        above = np.concatenate([above, -c], axis=1)
        enter = above.argmax(axis=1)
        open_ = above[np.arange(len(going)), enter] > limit
        going, enter = going[open_], enter[open_]
        if not len(going):
            break
        rows, right = _inequality(X, y, going, enter)
        across = held[going].transpose(0, 2, 1)
        price, share = np.linalg.solve(across, np.stack([means[going], rows], axis=2)).transpose(2, 0, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(share > SMALL, np.maximum(price, 0.0) / share, np.inf)
        leave = ratio.argmin(axis=1)
        fails = ~np.isfinite(ratio.min(axis=1))
        found[going[fails]] = np.nan
        going, leave = going[~fails], leave[~fails]
        held[going, leave], level[going, leave] = rows[~fails], right[~fails]
        found[going] = np.linalg.solve(held[going], level[going][:, :, None])[:, :, 0]
    found[going] = np.nan
    return np.maximum(found, 0.0)


def _inequality(X: np.ndarray, y: np.ndarray, going: np.ndarray, enter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left [resamples, k] and right sides [resamples] of the inequalities that enter: of rows, or, beyond them,
    c_j >= 0."""
    count, k = X.shape[-2:]
    row = np.minimum(enter, count - 1)
    of_row = (enter < count)[:, None]
    left = np.where(of_row, X[row] if X.ndim == 2 else X[going, row], np.eye(k)[np.maximum(enter - count, 0)])
    right = np.where(of_row[:, 0], y[0, row] if len(y) == 1 else y[going, row], 0.0)
    return left, right

"""Contiguous stretches of rows: neighbours are correlated, stretches hardly, so that these are drawn and exchanged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Rows below which there is no interval; resamples, of intervals and of nulls; the share that an interval leaves out.
FEWEST, DRAWS, EXCHANGES, OUTSIDE = 32, 400, 100, 0.1
_SEED = 20_1905_11881


def stretches(rows: int) -> np.ndarray:
    """The number of each row's stretch [rows]: about sqrt(rows) stretches, 4 or more, of about as many rows each."""
    return np.arange(rows) * max(4, round(rows**0.5)) // max(rows, 1)


def drawn(count: int, draws: int = DRAWS) -> np.ndarray:
    """How often each of `count` stretches is drawn in each resample of as many [draws, count]; the same every time."""
    return np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=draws)


def exchanged(rows: int, exchanges: int = EXCHANGES) -> np.ndarray:
    """Orders of rows in which stretches have changed places [exchanges, rows], each within kept in order."""
    parts = np.split(np.arange(rows), np.flatnonzero(np.diff(stretches(rows))) + 1)
    shuffle = np.random.default_rng(_SEED).permutation
    return np.stack([np.concatenate([parts[k] for k in shuffle(len(parts))]) for _ in range(exchanges)])


def foremost(y: np.ndarray, regressors: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Which rows [n] can bear an envelope y <= c . u, c >= 0, of rows of their stretch `part` [rows]: those beside
    which no other of it has regressors [rows, k] that are nowhere larger and a y that is no smaller."""
    kept = []
    for each in np.split(np.arange(len(y)), np.flatnonzero(np.diff(part)) + 1):
        u, level = regressors[each], y[each]
        beats = (u[:, None] <= u[None]).all(axis=2) & (level[:, None] >= level[None])
        same = beats & beats.T  # equal rows: the first stays
        kept.append(each[~(beats & ~np.tril(same)).any(axis=0)])
    return np.concatenate(kept)


class Interval(NamedTuple):
    """Of several constants [k]: the ends, and the median of the resamples."""

    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


def interval(found: np.ndarray, resampled: np.ndarray) -> Interval:
    """Of `found` [k] from the same of resamples [draws, k], cut off at 0: from the smaller of q_5 and 2 found - q_95 to
    the larger of q_95 and 2 found - q_5, q the quantiles.

    Resamples show what would be found without some of the stretches. It is an extreme, which they cannot pass, so that
    what lies beyond is told by the reflection alone. The interval is meant to hold the constants of the law from which
    the rows come, of which one run shows its largest rows. In rows made up (`python -m benchmarks fits`) it holds 86 to
    100% of them from 100 rows on, neighbours correlated or not, and 73 to 98% of 32 rows, where rows reach their bound
    or lie near it as often as anywhere below; 67 to 71% (55 to 72%) where they thin out towards it in proportion to the
    distance. Where there is no bound, as under Gaussian noise, it says how far the constants depend on single
    stretches, no more.
    """
    ordered, out = np.sort(resampled, axis=0), int(OUTSIDE / 2 * len(resampled))
    low, median, high = ordered[out], ordered[len(ordered) // 2], ordered[-1 - out]
    with np.errstate(invalid="ignore"):  # some draws may have none: inf
        return Interval(np.maximum(np.minimum(low, 2 * found - high), 0.0), median, np.maximum(high, 2 * found - low))

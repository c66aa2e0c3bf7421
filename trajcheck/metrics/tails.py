"""Whether the noise of one tensor's gradient is heavier-tailed than a Gaussian's: an index of stable laws, and what the
same estimator gives on Gaussians.

Letters: g_{b,j} coordinate j of the gradient on batch b of m; z_{b,j} the same less its mean over b, divided by its
standard deviation over b; K = floor(sqrt(m)) batches a block, y_{k,j} the sum of z over block k. With D the mean over
coordinates of (mean_k log |y_{k,j}| - mean_b log |z_{b,j}|), the index is log K / D: a sum of K variables of a stable
law of index alpha is K^(1/alpha) times as large as one of them (Mohammadi, Mohammadpour, Ogata, Metrika 78, 2015, as
Simsekli et al., arXiv 1901.06053, use it).

Pooling coordinates of unequal scale calls Gaussians heavy-tailed, so each has been divided by its own. Of Gaussians z
and y then have one law, whatever their scales, and D one mean, whatever their covariance over coordinates: `null`
simulates it. That mean is not log(K) / 2, since the z of one coordinate add up to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from trajcheck.metrics.student import widening

#: Batches below which an index tells nothing, and coordinates of the simulated Gaussians.
FEWEST, SIMULATED = 8, 20_000
#: |z| and |y| below it are rounding, and count as this.
LEAST = 2.0**-24


def block(m: int) -> int:
    """K, how many batches are added up."""
    return max(1, math.isqrt(m))


class Null(NamedTuple):
    """Of m Gaussians a coordinate: the mean of D and its variance for one coordinate, and that of log |z|."""

    mean: float
    variance: float
    of_logs: float


@cache
def null(m: int) -> Null:
    """By simulation, the same each time."""
    draws = np.random.default_rng(m).standard_normal((m, SIMULATED))
    z = draws - draws.mean(axis=0)
    z /= np.sqrt((z**2).sum(axis=0) / (m - 1))
    logs = np.log(np.maximum(np.abs(z), LEAST))
    k = block(m)
    sums = z[: m // k * k].reshape(m // k, k, SIMULATED).sum(axis=1)
    d = np.log(np.maximum(np.abs(sums), LEAST)).mean(axis=0) - logs.mean(axis=0)
    return Null(float(d.mean()), float(d.var()), float(logs.var()))


@dataclass(frozen=True)
class Tails:
    """Of one tensor, or of several together, on every row: m batches, n coordinates that vary over them, the sums over
    those of log |z| by batch [m, rows], and of log |y| over all blocks [rows]."""

    m: int
    coordinates: np.ndarray
    logs: np.ndarray
    block_logs: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """log K / D; NaN where blocks are not larger than single batches."""
        k = block(self.m)
        d = self.block_logs / (self.m // k) / self.coordinates - self.logs.mean(axis=0) / self.coordinates
        return np.where(d > 0, math.log(k) / np.where(d > 0, d, 1.0), np.nan)

    @property
    def of_gaussians(self) -> tuple[float, np.ndarray]:
        """The same of Gaussians, and by how much it may differ from that for as many coordinates as these count for,
        [rows]: log |z| of n independent ones, averaged, would differ from batch to batch by its variance over n."""
        found, k = null(self.m), block(self.m)
        spread = (self.logs / self.coordinates).var(axis=0, ddof=1)
        counted = np.minimum(self.coordinates, found.of_logs / np.maximum(spread, np.finfo(np.float64).tiny))
        index = math.log(k) / found.mean
        of_d = np.sqrt(found.variance * (1 / counted + 1 / SIMULATED)) * widening(self.m - 1)
        return index, index**2 / math.log(k) * of_d

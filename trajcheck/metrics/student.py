"""Student's t: by how much an error grows because it was itself estimated from few numbers.

Two errors are to cover 95.45%, as two standard deviations of a normal law do. Where the error comes from nu degrees of
freedom they do so after it is multiplied by t / 2, t the 97.7% quantile of Student's t with nu: 6.99 for nu = 1, 1.65
for 3, 1.16 for 8, 1.03 for 40. Source: "Student", "The probable error of a mean", Biometrika 6, 1908.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

#: How many errors cover P(|normal| <= ERRORS) after widening, and nodes of the integral, which is smooth.
ERRORS = 2.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@lru_cache(maxsize=4096)
def widening(freedom: float) -> float:
    """t / 2, > 1, with P(|T_nu| <= t) = P(|normal| <= 2), nu = `freedom` >= 1 degrees of freedom."""
    wanted = math.erf(ERRORS / math.sqrt(2.0))
    log_height = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2

    def density(x: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.exp(log_height - (freedom + 1) / 2 * np.log1p(np.square(x) / freedom)))

    found = ERRORS
    for _ in range(50):  # Newton from below: the distribution function is concave there, so that it never passes it
        inside = found * float(_WEIGHTS @ density((1 + _NODES) * found / 2))  # twice the integral from 0
        change = (wanted - inside) / (2 * float(density(found)))
        found += change
        if abs(change) < 1e-12 * found:
            break
    return found / ERRORS


def effective_freedom(covariance: np.ndarray) -> float:
    """tr(C)^2 / tr(C^2), the degrees of freedom of |y|^2 for y of covariance C [n, n]: those of the chi-square law with
    its mean and variance.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2,
    1946.
    """
    return float(np.trace(covariance) ** 2 / (covariance**2).sum())

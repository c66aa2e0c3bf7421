"""Student's t: by how much an error grows because it was itself estimated from few numbers.

Two errors are to cover 95.45%, as two standard deviations of a normal law do, and three 99.73%. Where the error comes
from nu degrees of freedom k of them do so after it is multiplied by t / k, t the quantile of Student's t with nu: for
k = 2 by 6.99 for nu = 1, 1.65 for 3, 1.16 for 8, 1.03 for 40; for k = 3 by 78.6, 3.06, 1.43 and 1.07. Source:
"Student", "The probable error of a mean", Biometrika 6, 1908.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

#: How many errors cover P(|normal| <= ERRORS) after widening, and nodes of the integral, which is smooth.
ERRORS = 2.0
#: exp(-60) is none of a probability.
_NOTHING = 60.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@lru_cache(maxsize=4096)
def widening(freedom: float, errors: float = ERRORS) -> float:
    """t / k, > 1, with P(|T_nu| <= t) = P(|normal| <= k), nu = `freedom` >= 1 degrees of freedom, k = `errors`."""
    return float(widenings(np.array([freedom]), errors)[0])


def widenings(freedom: np.ndarray, errors: float = ERRORS) -> np.ndarray:
    """Those of many numbers of degrees of freedom [n].

    With T = sqrt(nu) tan(a) the angle a has a density proportional to cos(a)^(nu - 1).
    """
    nu = np.asarray(freedom, dtype=np.float64)
    log_height = np.array([math.lgamma((n + 1) / 2) - math.lgamma(n / 2) for n in nu]) - math.log(math.pi) / 2
    end = np.arccos(np.where(nu > 2, np.exp(-_NOTHING / np.maximum(nu - 1, 1)), 0.0))
    share = (1 + _NODES) / 2  # squared, which takes the edge off cos(a)^(nu - 1) at the end
    outside, angle = math.erfc(errors / math.sqrt(2.0)), np.arctan(errors / np.sqrt(nu))

    def density(a: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(log_height[:, None] + (nu - 1)[:, None] * np.log(np.cos(a))))

    for _ in range(200):  # Newton from below: the probability beyond an angle is convex, so that it never passes it
        beyond = 2 * (end - angle) * (density(end[:, None] - (end - angle)[:, None] * share**2) @ (_WEIGHTS * share))
        change = (beyond - outside) / (2 * density(angle[:, None])[:, 0])
        angle = angle + change
        if (np.abs(change) < 1e-13).all():
            break
    return np.asarray(np.sqrt(nu) * np.tan(angle) / errors)


def effective_freedom(covariance: np.ndarray) -> float:
    """tr(C)^2 / tr(C^2), the degrees of freedom of |y|^2 for y of covariance C [n, n]: those of the chi-square law with
    its mean and variance.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2,
    1946.
    """
    return float(np.trace(covariance) ** 2 / (covariance**2).sum())

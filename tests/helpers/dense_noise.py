"""Noise between batches, pair by pair and leaving one out after the other, in long double: nothing shared with the
package.

`gradients` [m, n] are those of the batches, `sizes` their examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

Of = Callable[[np.ndarray, np.ndarray], float]


def pairs_mean(gradients: np.ndarray) -> float:
    """The mean of <g_a, g_b> over pairs."""
    return float(np.mean([a @ b for a, b in combinations(gradients, 2)]))


def mean_square(gradients: np.ndarray) -> float:
    return float(np.mean([g @ g for g in gradients]))


def trace(gradients: np.ndarray, sizes: np.ndarray) -> float:
    """From the harmonic mean of the sizes."""
    return (mean_square(gradients) - pairs_mean(gradients)) / float(np.mean(1 / sizes))


def cosine_mean(gradients: np.ndarray) -> float:
    return float(np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in combinations(gradients, 2)]))


COLUMNS: dict[str, Of] = {
    "grad_true_sq": lambda g, sizes: pairs_mean(g),
    "noise_trace": trace,
    "noise_scale": lambda g, sizes: trace(g, sizes) / pairs_mean(g),
    "coherence": lambda g, sizes: pairs_mean(g) / mean_square(g),
    "batch_cos": lambda g, sizes: cosine_mean(g),
    "growth": lambda g, sizes: mean_square(g) / pairs_mean(g),
    "batch_grad_sq": lambda g, sizes: mean_square(g),
}


def noise(gradients: Sequence[np.ndarray], sizes: Sequence[float]) -> dict[str, float]:
    """Every column and `<column>_se`; ratios by |grad f|^2 are NaN where that is undetermined."""
    g, b = np.array(gradients, dtype=np.longdouble), np.array(sizes, dtype=np.longdouble)
    m, found = len(g), dict[str, float]()
    others = [np.arange(m) != k for k in range(m)]
    for name, statistic in COLUMNS.items():
        left = np.array([statistic(g[keep], b[keep]) for keep in others])
        found[name] = statistic(g, b)
        found[f"{name}_se"] = float(np.sqrt((m - 1) / m * ((left - left.mean()) ** 2).sum()))
    positive = min(pairs_mean(g[keep]) for keep in others) > 0
    if not (positive and found["grad_true_sq"] > found["grad_true_sq_se"]):
        for name in ("noise_scale", "growth"):
            found[name] = found[f"{name}_se"] = np.nan
    return found

"""Whether one point comes from another: the part of it that is still there, from the sampled elements.

Training adds updates to the weights that it starts from, so that a point keeps a part of each earlier one:

    kept(a, b) = sum over tensors of <c_a, c_b> / sum of |c_a|^2,   c = a tensor's elements less their mean,

is 1 less what weight decay and the descent along stiff directions have taken, while noise, in as many directions as
there are elements, adds nothing to it but its own width, |c_b| / (|c_a| sqrt(elements)). Weights of another
initialization have 0 within that width. What starts at a constant (biases, gains) has no c, and does not count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trajcheck.audit.sampled import Samples

#: A tensor with fewer sampled elements does not count.
FEWEST = 32


class Kept(NamedTuple):
    """The part of one point that another holds, the width of that, and their cosine."""

    part: float
    width: float
    cosine: float

    @property
    def none(self) -> bool:
        """Whether it is nothing, and that is certain."""
        return self.width <= 0.05 and self.part <= 0.1 and self.part + 3 * self.width <= 0.2

    @property
    def most(self) -> bool:
        return self.part >= 0.7 and self.part >= 6 * self.width


def kept(samples: Samples, a: int, b: int, of: Samples | None = None) -> Kept:
    """How much of point `a` point `b` holds; `a` may be the first point `of` another run with the same tensors."""
    counts = samples.counts.astype(float)
    scale = np.where(counts >= FEWEST, samples.numels / counts, 0.0)
    if of is None:
        inner = _inner(samples, a, b) - samples.sums[a] * samples.sums[b] / counts
        first = samples.squares[a] - samples.sums[a] ** 2 / counts
    else:
        inner = _with_other(samples, b, of) - of.sums[0] * samples.sums[b] / counts
        first = of.squares[0] - of.sums[0] ** 2 / counts
    second = samples.squares[b] - samples.sums[b] ** 2 / counts
    spread = first > 1e-10 * np.maximum(samples.squares[a] if of is None else of.squares[0], 1e-300)
    scale = np.where(spread, scale, 0.0)
    product, here, there = (float((scale * each).sum()) for each in (inner, first, second))
    elements = float(counts[scale > 0].sum())
    if here <= 0 or there <= 0 or elements < FEWEST:
        return Kept(0.0, np.inf, 0.0)
    return Kept(product / here, float(np.sqrt(there / here / elements)), product / float(np.sqrt(here * there)))


def lengths_squared(samples: Samples) -> np.ndarray:
    """|c|^2 of each point, over the tensors that count."""
    scale = np.where(samples.counts >= FEWEST, samples.numels / samples.counts, 0.0)
    return np.asarray((scale * (samples.squares - samples.sums**2 / samples.counts)).sum(axis=1))


def _inner(samples: Samples, a: int, b: int) -> np.ndarray:
    """<x_a, x_b> over each tensor's samples, from x_a - x_0, x_b - x_0 and products with x_0."""
    moved = samples.moved[a].astype(float) * samples.moved[b].astype(float)
    together = np.add.reduceat(moved, samples.starts[:-1]) * samples.counts / samples.numels
    return np.asarray(together + samples.with_first[a] + samples.with_first[b] - samples.with_first[0])


def _with_other(samples: Samples, b: int, other: Samples) -> np.ndarray:
    """<y_0, x_b> over each tensor's samples, exactly where no tensor has more of them than are kept."""
    starts = np.concatenate([[0], np.cumsum(samples.counts)])[:-1]
    first = np.add.reduceat(other.first * samples.first, starts)
    moved = samples.moved[b].astype(float) * samples.sketch(other.first)
    return np.asarray(first + np.add.reduceat(moved, samples.starts[:-1]) * samples.counts / samples.numels)

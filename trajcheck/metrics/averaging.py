"""How quantities are averaged along a run, and which conventions of other people's code can be had instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajcheck.metrics.columns import Column, exponential_mean, mean_so_far, running_mean
from trajcheck.metrics.weights import Weights

#: Of exponential averages, and of the longer ones that TZC's code has beside them.
BETA, LONG_BETA = 0.99, 0.9999


@dataclass(frozen=True)
class Averaging:
    """The definitions' way by default; `tzc_v1` is that of the code of TZC, arXiv 2407.01825v1.

    `epochs`: averages restart where this changes from row to row (None: never). `debias`: whether exponential averages
    are divided by 1 - beta^n. `betas`: the exponential averages, by what their columns' names end in. `per_tensor`:
    norms of all parameters are sums of the tensors' norms, in smoothness. `lagging`: in smoothness_ratio the sum of
    inner products stops one step earlier.
    """

    epochs: np.ndarray | None = None
    debias: bool = True
    betas: tuple[tuple[str, float], ...] = (("", BETA),)
    per_tensor: bool = False
    lagging: bool = False

    def mean(self, terms: Column, weights: Weights) -> Column:
        """sum w a / sum w over the rows so far (of the epoch) where a is defined."""
        if self.epochs is None:
            return running_mean(terms, weights)
        values = np.full(len(terms), np.nan)
        borders = np.flatnonzero(np.diff(self.epochs)) + 1
        weighs = weights.of(terms.defined)
        for rows in np.split(np.arange(len(terms)), borders):
            here = rows[terms.defined[rows]]
            values[here] = mean_so_far(terms.values[here], weighs[here])
        return Column(values, terms.reasons)

    def exponential(self, terms: Column, steps: np.ndarray) -> dict[str, Column]:
        """The exponential averages, by what their columns' names end in."""
        return {ending: exponential_mean(terms, steps, beta, debias=self.debias) for ending, beta in self.betas}


def tzc_v1(epochs: np.ndarray | None) -> Averaging:
    """The conventions of TZC's code, version 1."""
    return Averaging(epochs, debias=False, betas=(("", BETA), ("_9999", LONG_BETA)), per_tensor=True, lagging=True)

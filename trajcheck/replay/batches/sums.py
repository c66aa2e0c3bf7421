"""Sums over the batches of one row, and each batch's products with them: what is to be known of the noise between
batches (metrics/batches.py). Two vectors, however many batches there are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trajcheck.inner_products.catalogue import BATCH_PRODUCTS
from trajcheck.replay.batches.tails import BatchTails
from trajcheck.replay.reducer import Reducer, Shares, Vector


class BatchSums:
    """S = sum_b g_b and U = sum_b g_b / |g_b|, in float32 or wider; norms are summed in float64. What is added is added
    to `tails` too."""

    def __init__(self, tails: BatchTails | None = None) -> None:
        self.tails = tails
        self._sum: dict[str, Tensor] = {}
        self._units: dict[str, Tensor] = {}

    def add(self, gradient: Vector, divisor: float = 1.0) -> None:
        """One more batch, g_b = gradient / divisor. A gradient that is 0 has no direction, and adds none."""
        with torch._C.DisableTorchFunction(), torch.no_grad():  # dtypes are those that are written here
            self._add(gradient, divisor)
        if self.tails is not None:
            self.tails.add(gradient)

    def _add(self, gradient: Vector, divisor: float) -> None:
        if not self._sum:
            for name, part in gradient.items():
                wide = torch.promote_types(part.dtype, torch.float32)
                self._sum[name] = torch.zeros_like(part, dtype=wide)
                self._units[name] = torch.zeros_like(part, dtype=wide)
        squares = [torch.linalg.vector_norm(part, dtype=torch.float64) ** 2 for part in gradient.values()]
        norm = torch.stack(squares).sum().sqrt()
        scale = torch.where(norm > 0, 1 / norm, 0.0)
        for name, part in gradient.items():
            self._sum[name].add_(part.to(self._sum[name].dtype), alpha=1 / divisor)
            self._units[name].add_(part.to(self._units[name].dtype) * scale)

    def products(self, reducer: Reducer, gradient: Vector, divisor: float = 1.0, more: Sequence[str] = ()) -> Shares:
        """<g_b, S> and <g_b, U> of one of the batches, and `more` of itself."""
        vectors = {"gradient": gradient, "batch_sum": self._sum, "unit_sum": self._units}
        return reducer.reduce(vectors, {}, (*more, *BATCH_PRODUCTS), (), {"gradient": divisor})

"""Tails of the noise between batches: sums of logarithms of standardised gradients, batch by batch (metrics/tails.py).

Three vectors, however many batches there are: the mean and the squares around it, added up as in Welford, "Note on a
method for calculating corrected sums of squares and products", Technometrics 4, 1962; then the sum of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trajcheck.metrics.tails import LEAST, block
from trajcheck.replay.reducer import Reducer, Shares, Vector
from trajcheck.scalars.values import OF_TAILS


class BatchTails:
    """First all batches are added, then each is measured in the same order."""

    def __init__(self, batches: int) -> None:
        self._m, self._k, self._count = batches, block(batches), 0
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._block: dict[str, Tensor] = {}

    def add(self, gradient: Vector) -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            self._count += 1
            for name, part in gradient.items():
                wide = part.to(torch.promote_types(part.dtype, torch.float32))
                if name not in self._mean:
                    self._mean[name], self._squares[name] = torch.zeros_like(wide), torch.zeros_like(wide)
                off = wide - self._mean[name]
                self._mean[name].add_(off, alpha=1 / self._count)
                self._squares[name].addcmul_(off, wide - self._mean[name])

    def shares(self, reducer: Reducer, gradient: Vector, number: int) -> Shares:
        """Of batch `number`, tensor by tensor: how many coordinates vary, the sum over these of log |z|, and, of the
        last batch of a block, of log |y|."""
        values = torch.zeros(len(OF_TAILS), reducer.parts, dtype=torch.float64)
        with torch._C.DisableTorchFunction(), torch.no_grad():
            found = [torch.stack(self._of_tensor(name, gradient[name], number)) for name in reducer.tensors]
        if found:
            values = values.to(found[0].device)
            values[:, torch.as_tensor(list(reducer.starts), device=values.device)] = torch.stack(found, dim=1)
        return Shares([(None, name) for name in OF_TAILS], values)

    def _of_tensor(self, name: str, part: Tensor, number: int) -> list[Tensor]:
        squares = self._squares[name]
        varies = squares > 0
        scale = torch.where(varies, (self._m - 1) / squares, 0.0).sqrt()
        z = (part.to(squares.dtype) - self._mean[name]) * scale

        def logs(of: Tensor) -> Tensor:
            return torch.where(varies, of.abs().clamp(min=LEAST).log(), 0.0).sum(dtype=torch.float64)

        first = number % self._k == 0
        self._block[name] = z if first else self._block[name] + z
        of_batch = logs(z)
        of_block = logs(self._block[name]) if (number + 1) % self._k == 0 else torch.zeros_like(of_batch)
        return [varies.sum(dtype=torch.float64), of_batch, of_block]

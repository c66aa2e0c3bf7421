"""Batches of packed tokens: windows of one length, beside each other in the stream, so many a batch.

The loss of a window is the mean over its tokens but the first, each predicted from those before it in the window
(`labels` are the tokens themselves, which the model shifts). The whole data set is every window in its order, what is
left at the end of the stream beyond the last whole window, and windows beyond the last whole batch in a smaller one;
batches weigh by the tokens they predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.seeded import choose


class TokenBatches:
    """Iterable again and again: the whole data set."""

    def __init__(self, stream: Any, length: int, size: int, source: str) -> None:
        self.length, self.size = length, size
        self._stream, self._source = stream, source
        self._windows = len(stream) // length
        if not self._windows:
            raise ObjectiveError(
                f"--data {source}: has {len(stream):,} tokens, fewer than one window of --sequence-length {length}"
            )

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, self._windows, self.size):
            count = min(self.size, self._windows - first)
            tokens = self._stream.window(first * self.length, count * self.length)
            yield torch.from_numpy(tokens.reshape(count, self.length))
        rest = len(self._stream) - self._windows * self.length
        if rest > 1:
            yield torch.from_numpy(self._stream.window(self._windows * self.length, rest).reshape(1, rest))

    def drawn(self, count: int, seed: int) -> tuple[list[Tensor], list[list[int]]]:
        """`count` batches of windows, each window at most once, and at which tokens these begin. Raises ObjectiveError
        where there are too few."""
        wanted = count * self.size
        if wanted > self._windows:
            raise ObjectiveError(
                f"--data {self._source}: has {self._windows:,} windows of {self.length} tokens, and --probe {count} of "
                f"--batch-size {self.size} takes {wanted:,}"
            )
        starts = [self.length * window for window in choose(wanted, self._windows, seed)]
        places = [starts[i : i + self.size] for i in range(0, wanted, self.size)]
        rows = [np.stack([self._stream.window(start, self.length) for start in batch]) for batch in places]
        return [torch.from_numpy(each) for each in rows], places

    @staticmethod
    def weight(batch: Tensor) -> float:
        """The tokens that a batch predicts."""
        return float(batch.shape[0] * (batch.shape[1] - 1))

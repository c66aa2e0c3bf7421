"""Where a few elements of a large tensor are read so that every row of a matrix is met, and every column."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trajcheck.recording.model.shards import local

#: Of a large tensor so many elements are read at once, or one in so many, whichever is more.
SCATTERED, SHARE = 2048, 128


def step_and_count(tensor: Tensor) -> tuple[int, int]:
    """The longest step that meets every row and every column of a matrix: shorter than a row, with no factor in common
    with it, and as many readings as it is long. A longer one where these would be too many."""
    size = tensor.numel()
    row, most = row_of(tensor), max(SCATTERED, size // SHARE)
    step = max(min(row - 1, size // row), 1)
    while math.gcd(step, row) > 1:
        step -= 1
    if size // step > most:
        step = -(-size // most)
        while math.gcd(step, row) > 1:
            step += 1
    return step, size // step


def flat(tensor: Tensor) -> Tensor | None:
    """A view of all elements as they lie in memory; None where they lie apart."""
    held = local(tensor.detach())
    if held.is_contiguous():
        return held.view(-1)
    if torch.ops.aten.is_non_overlapping_and_dense(held):
        return held.as_strided((held.numel(),), (1,))
    return None


def row_of(tensor: Tensor) -> int:
    """Elements of a row, in the order in which they are read."""
    if flat(tensor) is None:
        return tensor.numel() // tensor.shape[0]
    strides = zip(tensor.stride(), tensor.shape, strict=True)
    return max((stride for stride, extent in strides if extent > 1), default=1)

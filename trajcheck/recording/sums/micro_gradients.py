"""Recorder(micro_gradients=True): what the gradients of a step's micro-batches have with one another, so that the noise
between them is known without a replay.

What `backward()` has left when micro-batch i is observed is P_i = sum_{j<=i} w_j grad f_j, so that with W = sum_j w_j
its own gradient is g_i = W (P_i - P_{i-1}) / w_i. The P_i of a recorded step are kept until it ends, M vectors of the
training device, and three numbers a micro-batch are recorded, from which all sums without one of them follow:
|g_i|^2, <g_i, S> with S = sum_j g_j, and <g_i, U> with U = sum_j g_j / |g_j|.

Each P_i is rounded to the dtype of .grad, whose machine epsilon is eps: that adds some eps^2 |P_i|^2 W^2 / (28 w_i^2)
to |g_i|^2 (eps^2 / 28 is the mean square of the rounding of numbers whose mantissas are even in [1, 2], over theirs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trajcheck.recording.model.recorded_model import Parameter

WEIGHTS = "a micro-batch was observed with a weight that is not known, or not above 0"
SCALED = "gradients were multiplied by a loss scale"
SEVERAL_RANKS = "gradients are of several ranks"
UNCHANGED = "gradients were the same at two calls of observe(): it is to be called after each backward()"
NOT_FINITE = "gradients were not finite"
ROUNDED = "rounding of the sums in .grad is not far below the noise between micro-batches"
UNSEEN = "not all of its micro-batches were seen when their gradients were there"

#: Of the noise between micro-batches rounding may be so much; where it may be more, nothing is recorded.
ROUNDING = 0.01
#: What the numbers themselves are rounded by, of the largest of them.
SUMMED = 16 * 2.0**-53


class MicroGradients:
    """Of the step that is being made. Nothing here waits for the device but `take()`, at a record."""

    def __init__(self, ranks: int) -> None:
        self._reason = SEVERAL_RANKS if ranks > 1 else ""
        self._sums: list[list[Tensor | None]] = []
        self._weights: list[float | None] = []

    def observed(self, parameters: Sequence[Parameter], weight: float | None, *, first: bool, scaled: bool) -> None:
        """One more micro-batch has added its gradient; the `first` of its step begins anew."""
        if first:
            self._sums, self._weights = [], []
        if self._reason:
            return
        self._weights.append(None if scaled else weight)
        self._scaled = scaled
        with torch.no_grad():
            grads = [parameter.tensor.grad for parameter in parameters]
            self._sums.append([None if grad is None else grad.detach().clone() for grad in grads])

    def take(self, micro_batches: int) -> tuple[dict[str, Any], str]:
        """The numbers of a step of so many micro-batches as metadata, and why there are none; both empty for one of one
        micro-batch. Waits."""
        sums, weights = self._sums, self._weights
        self._sums, self._weights = [], []
        if micro_batches < 2:
            return {}, ""
        if self._reason or len(sums) != micro_batches:
            return {}, self._reason or UNSEEN
        if self._scaled:
            return {}, SCALED
        known = [weight for weight in weights if weight is not None and weight > 0]
        if len(known) < micro_batches:
            return {}, WEIGHTS
        with torch.no_grad():
            shares = [weight / sum(known) for weight in known]
            numbers = _numbers(sums, shares)
            rounding = _rounding(sums, shares)
        if not all(map(torch.isfinite, numbers.flatten())):
            return {}, NOT_FINITE
        squares, dots, units = numbers.tolist()
        if 0.0 in squares:
            return {}, UNCHANGED
        noise = (math.fsum(squares) - math.fsum(dots) / micro_batches) / (micro_batches - 1)
        rounding += SUMMED * max(squares)
        if rounding > ROUNDING * noise:
            return {}, ROUNDED
        return {"squares": squares, "dots": dots, "units": units}, ""


def _numbers(sums: Sequence[Sequence[Tensor | None]], divisors: Sequence[float]) -> Tensor:
    """|g_i|^2, <g_i, S>, <g_i, U> [3, M] float64, in host memory."""
    tensors = [_of_tensor(each, divisors) for each in zip(*sums, strict=True)]
    there = [each for each in tensors if each is not None]
    squares = torch.zeros(len(divisors), dtype=torch.float64)
    for each in there:
        squares += torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) ** 2 for g in each]).cpu()
    lengths = squares.sqrt()
    dots, units = torch.zeros_like(squares), torch.zeros_like(squares)
    for each in there:
        whole = torch.stack([g.double() for g in each]).sum(dim=0)
        directions = sum(g.double() / (length or 1.0) for g, length in zip(each, lengths.tolist(), strict=True))
        dots += torch.stack([(g.double() * whole).sum() for g in each]).cpu()
        units += torch.stack([(g.double() * directions).sum() for g in each]).cpu()
    return torch.stack([squares, dots, units])


def _rounding(sums: Sequence[Sequence[Tensor | None]], shares: Sequence[float]) -> float:
    """What rounding adds to |g_i|^2, in the mean. The first of a step is not added to anything."""
    found = 0.0
    for each, share in zip(sums[1:], shares[1:], strict=True):
        for held in each:
            if held is not None:
                size = torch.finfo(held.dtype).eps * float(torch.linalg.vector_norm(held, dtype=torch.float64)) / share
                found += size**2 / 28
    return found / len(shares)


def _of_tensor(sums: Sequence[Tensor | None], divisors: Sequence[float]) -> list[Tensor] | None:
    """The g_i of one parameter; None where no micro-batch has a gradient of it."""
    like = next((each for each in sums if each is not None), None)
    if like is None:
        return None
    wide = torch.promote_types(like.dtype, torch.float32)
    before, found = torch.zeros_like(like, dtype=wide), []
    for each, divisor in zip(sums, divisors, strict=True):
        now = before if each is None else each.to(wide)
        found.append((now - before) / divisor)
        before = now
    return found

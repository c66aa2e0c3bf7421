"""By what factor gradients were multiplied between two moments: clipping, and the division by a loss scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trajcheck.recording.step.gradient_watch import GradientWatch

#: A measure of c g may differ from c times that of g by so many units of rounding of its dtype.
ROUNDING = 8


class GradientMeasures:
    """|g_i|, min g_i and max g_i of some tensors' gradients at the moment it is made, on their devices, in float64."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = list(tensors)
        self._watch = GradientWatch(tensors)
        self._watch.note()
        self._measures = _measures(tensors)

    def untouched(self) -> bool:
        """Whether nothing was done to the gradients since."""
        return self._watch.untouched()

    @property
    def vanished(self) -> bool:
        """Whether the gradients are 0, of which any factor is one. Waits for the devices."""
        return not any(map(any, _fetched(self._measures).values()))

    @property
    def rounding(self) -> float:
        """Relative, of a factor."""
        return ROUNDING * max((torch.finfo(tensor.dtype).eps for tensor in self._tensors), default=0.0)

    def factor(self) -> float | None:
        """c >= 0 where every gradient is now c times what it was, else None.

        c = sqrt(sum |g_i|^2 now / sum |g_i|^2 then), and all measures of every tensor have to agree with it within the
        rounding of its dtype: clipping values, or adding noise, has no factor. Neither have gradients that were
        given up or made since, and infinite ones. Waits for the devices.
        """
        then, now = _fetched(self._measures), _fetched(_measures(self._tensors))
        if then.keys() != now.keys() or not all(map(math.isfinite, _flat(then) + _flat(now))):
            return None
        size, size_now = (math.hypot(*(norm for norm, *_ in each.values())) for each in (then, now))
        if not size:
            return None if size_now else 1.0
        factor = size_now / size
        for i, measures in then.items():
            gradient = self._tensors[i].grad
            assert gradient is not None
            tolerance = ROUNDING * torch.finfo(gradient.dtype).eps * factor
            if any(abs(new - factor * old) > tolerance * abs(old) for old, new in zip(measures, now[i], strict=True)):
                return None
        return factor


def _measures(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    return [None if tensor.grad is None else _measured(tensor.grad.detach()) for tensor in tensors]


def _measured(gradient: torch.Tensor) -> torch.Tensor:
    if hasattr(gradient, "to_local"):  # of a DTensor, this rank's piece
        gradient = gradient.to_local()
    values = gradient if gradient.layout is torch.strided else gradient._values()  # those of a multiple are multiples
    if not values.numel():
        return torch.zeros(3, dtype=torch.float64)
    # Both extremes, since aminmax takes a tenth of the time of the maximum norm.
    return torch.stack(
        [torch.linalg.vector_norm(values, dtype=torch.float64), *map(torch.Tensor.double, values.aminmax())]
    )


def _fetched(measures: Sequence[torch.Tensor | None]) -> dict[int, list[float]]:
    return {i: of_tensor.tolist() for i, of_tensor in enumerate(measures) if of_tensor is not None}


def _flat(measures: dict[int, list[float]]) -> list[float]:
    return [measure for of_tensor in measures.values() for measure in of_tensor]

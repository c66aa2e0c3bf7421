"""Random numbers in the dtype in which the training drew them, where a replay is in a wider one.

Most of torch's generators give other numbers in float64 than in float32 from the same state: a replay in float64 would
have other dropout masks on a GPU, and other noise everywhere. So each random operation draws in the narrow dtype, and
what it drew is widened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trajcheck.objective.dispatch.mode import Mode

_aten = torch.ops.aten
#: Those that fill a tensor in place, and those that make one, of the default dtype unless one is given, or of that of
#: their argument; of all of them the numbers drawn depend on the dtype.
_FILLS = {
    *(_aten.bernoulli_, _aten.normal_, _aten.uniform_, _aten.exponential_, _aten.log_normal_, _aten.cauchy_),
    *(_aten.geometric_, _aten.random_),
}
_WITH_DTYPE = {_aten.rand, _aten.randn, _aten.rand_like, _aten.randn_like, _aten.normal}
_MAKES = {*_WITH_DTYPE, _aten.bernoulli, _aten.multinomial, _aten.poisson}


class DrawsIn(Mode):
    """While it is entered, random operations on tensors of the dtype `wide` draw in `narrow`."""

    def __init__(self, narrow: torch.dtype, wide: torch.dtype) -> None:
        super().__init__()
        self._narrow, self._wide = narrow, wide

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, getattr(function, "_overloadpacket", None)
        if packet in _FILLS and args[0].dtype is self._wide:
            drawn = function(torch.empty_like(args[0], dtype=self._narrow), *map(self._narrowed, args[1:]), **kwargs)
            return args[0].copy_(drawn)
        if packet is _aten.normal and any(isinstance(each, Tensor) and each.dtype is self._wide for each in args[:2]):
            return self._normal(*args, **kwargs)
        if packet in _MAKES:
            return self._made(function, packet in _WITH_DTYPE, args, kwargs)
        if packet is _aten.native_dropout and args[0].dtype is self._wide:
            ones = torch.ones_like(args[0], dtype=self._narrow)
            _, mask = function(ones, *args[1:], **kwargs)
            kept = 1 - args[1]
            return args[0] * mask * (1 / kept if kept else 0.0) if args[2] is not False else args[0] * 1, mask
        return function(*args, **kwargs)

    def _made(self, function: Any, with_dtype: bool, args: Any, kwargs: Mapping[str, Any]) -> Any:
        like = next((each.dtype for each in args if isinstance(each, Tensor)), torch.get_default_dtype())
        wanted = (kwargs.get("dtype") if with_dtype else None) or like
        if wanted is not self._wide:
            return function(*args, **kwargs)
        named = {**kwargs, "dtype": self._narrow} if with_dtype else kwargs
        found = function(*map(self._narrowed, args), **named)
        return found.to(self._wide) if found.dtype is self._narrow else found

    def _normal(self, mean: Any, std: Any = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """mean + std z, z drawn in the narrow dtype."""
        tensors = [each for each in (mean, std) if isinstance(each, Tensor)]
        shape = torch.broadcast_shapes(*(each.shape for each in tensors))
        z = torch.empty(shape, dtype=self._narrow, device=tensors[0].device).normal_(generator=generator)
        return torch.as_tensor(mean + std * z.to(self._wide))

    def _narrowed(self, value: Any) -> Any:
        return value.to(self._narrow) if isinstance(value, Tensor) and value.dtype is self._wide else value


class DrawnElsewhere(Exception):
    """An evaluation drew random numbers of another dtype than the training's: it is to be made again."""


def states(device: torch.device) -> tuple[Tensor, ...]:
    """Those of torch's random streams."""
    found = [torch.get_rng_state()]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device))
    return tuple(found)


def drawn_since(began: tuple[Tensor, ...], device: torch.device) -> bool:
    """Whether anything was drawn from them since."""
    return not all(torch.equal(one, other) for one, other in zip(began, states(device), strict=True))

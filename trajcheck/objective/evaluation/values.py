"""The value that a loss returned, and x as what stands in the model's place while it is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trajcheck.errors import ObjectiveError


def value_and_count(found: Any) -> tuple[Any, Any]:
    """A loss may return how much it is the mean of beside its value."""
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor):
        return found
    return found, None


def scalar(value: Any, where: str, error: Callable[[str, str], ObjectiveError]) -> Tensor:
    """The value, if it is one number of a floating dtype."""
    if not isinstance(value, Tensor):
        raise error(where, f"the loss returned a {type(value).__name__}; expected a scalar tensor")
    if value.ndim:
        advice = "add .squeeze()" if value.numel() == 1 else "add .mean() or .sum()"
        raise error(where, f"the loss has shape {tuple(value.shape)}; expected a scalar, shape (): {advice}")
    if not value.is_floating_point():
        raise error(where, f"the loss is {str(value.dtype).removeprefix('torch.')}; expected a floating dtype")
    return value


def convert(parameter: nn.Parameter, dtype: torch.dtype) -> None:
    """Give a parameter another dtype in its place; the weightless ones of an exported program stay expanded."""
    if parameter.dtype is not dtype:
        expanded = parameter.numel() > 1 and not any(parameter.stride())
        if expanded:
            one = parameter.data[(slice(1),) * parameter.ndim].to(dtype)
            parameter.data = one.reshape(()).expand(parameter.shape)
        else:
            parameter.data = parameter.data.to(dtype)

"""The optimizer that makes the steps, inside what wraps it: Accelerate's, Fabric's, SAM, Lookahead and their kin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

#: Wrappers that leave the steps to what is inside, as they are.
TRANSPARENT = ("AcceleratedOptimizer", "_FabricOptimizer", "LightningOptimizer")


def inner_optimizer(optimizer: Any) -> tuple[Any, list[str]]:
    """The innermost optimizer, and the classes of what is around it that may do something to its steps, from outside.

    A wrapper is anything that holds one optimizer, over the same parameters. What is none is given back as it is.
    """
    around: list[str] = []
    seen = {id(optimizer)}
    while (inner := _held(optimizer)) is not None and id(inner) not in seen:
        seen.add(id(inner))
        if not any(kind.__name__ in TRANSPARENT for kind in type(optimizer).__mro__):
            around.append(type(optimizer).__name__)
        optimizer = inner
    return optimizer, around


def optimizer_name(optimizer: torch.optim.Optimizer, around: Iterable[str] = ()) -> str:
    """As SGD, or Lookahead(SGD): what holds for SGD alone is not to be read from it then."""
    name = type(optimizer).__name__
    for outer in reversed(list(around)):
        name = f"{outer}({name})"
    return name


def _held(optimizer: Any) -> Any:
    """The one optimizer among the attributes of another object, if it is of the same parameters."""
    try:
        held = {id(value): value for value in vars(optimizer).values() if _makes_steps(value)}
    except TypeError:  # no attributes
        return None
    if len(held) != 1:
        return None
    inner = next(iter(held.values()))
    return inner if _parameters(inner) >= _parameters(optimizer) else None


def _makes_steps(value: Any) -> bool:
    return isinstance(value, torch.optim.Optimizer) or (
        hasattr(type(value), "step") and hasattr(type(value), "zero_grad") and hasattr(value, "param_groups")
    )


def _parameters(optimizer: Any) -> set[int]:
    """By identity; of a wrapper that has no groups of its own: none."""
    groups = getattr(optimizer, "param_groups", None)
    return {id(tensor) for group in groups or () for tensor in group["params"]}

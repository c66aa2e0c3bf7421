"""Optimizers that are given a closure: `step(closure)` evaluates loss and gradients itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional (the optimizer first) and keyword arguments of step()


def watch_closure(args: tuple[Any, ...], kwargs: dict[str, Any], ran: Callable[[], Any]) -> Call | None:
    """The arguments of step() with a closure that calls `ran` whenever it was evaluated; None if there is no closure.

    The gradients that it leaves are not taken after the step where it can be helped: torch.optim.SGD(nesterov=True,
    foreach=True), the default on a GPU, adds the momentum to .grad in place.
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        return None

    def watched() -> Any:
        result = closure()
        ran()
        return result

    return ((*args[:1], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

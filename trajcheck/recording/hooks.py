"""The hooks of a model and its optimizer that tell of every forward pass and every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trajcheck.recording.guard import Guard
from trajcheck.recording.model.called import WatchedCalls
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.outside_graphs import outside_graphs
from trajcheck.recording.step_recorder import StepRecorder

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional (the optimizer first) and keyword arguments of step()


class LoopHooks:
    """Tell the StepRecorder of the loop, inside the guard, until `remove()`."""

    def __init__(self, model: torch.nn.Module, optimizers: Optimizers, steps: StepRecorder, guard: Guard) -> None:
        self._steps, self._guard = steps, guard
        self._calls: list[WatchedCalls] = []
        self._handles: list[Any] = []
        self.watch_calls(model)
        try:
            for optimizer in optimizers.members:
                self._handles.append(optimizer.register_step_pre_hook(outside_graphs(self._before_step)))
                self._handles.append(optimizer.register_step_post_hook(outside_graphs(self._after_step)))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        for handle in [*self._calls, *self._handles]:
            handle.remove()

    def watch_calls(self, module: torch.nn.Module) -> WatchedCalls:
        """Take the calls of this module for forwards."""
        for calls in self._calls:
            if calls.module is module:
                return calls
        self._calls.append(WatchedCalls(module, self._before_forward, self._after_forward))
        return self._calls[-1]

    def forward_begins(self, module: torch.nn.Module) -> None:
        """The forward of a module whose calls are watched has begun before that was."""
        self._before_forward(module)

    def _before_forward(self, module: torch.nn.Module) -> None:
        if self._guard.active:
            with self._guard:
                self._steps.before_forward(module)

    def _after_forward(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._guard.active:
            with self._guard:
                self._steps.after_forward(module, output)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Call | None:
        if self._guard.active:
            with self._guard:
                watched = watch_closure(args, kwargs, self._closure_ran)
                self._steps.before_step(optimizer, closure=watched is not None)
                return watched if self._steps.noting else None
        self._guard.passed_by()
        return None

    @contextmanager
    def step_by_hand(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Around an update that the loop writes itself; one that fails does not count."""
        self._before_step(optimizer, (optimizer,), {})
        yield
        self._after_step(optimizer, (optimizer,), {})

    def _closure_ran(self) -> None:
        if self._guard.active:
            with self._guard:
                self._steps.closure_ran()

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._guard.active:
            with self._guard:
                self._steps.after_step(optimizer)
                for calls in self._calls:
                    calls.follow()


def watch_closure(args: tuple[Any, ...], kwargs: dict[str, Any], ran: Callable[[], Any]) -> Call | None:
    """The arguments of step() with a closure, by which the optimizer evaluates loss and gradients itself, that calls
    `ran` whenever it was evaluated; None if there is no closure.

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

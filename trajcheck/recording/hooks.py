"""The hooks of a model and its optimizer that tell of every forward pass and every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trajcheck.recording.step.sample_state import ForwardHook
from trajcheck.recording.step_recorder import StepRecorder


class LoopHooks:
    """Calls the StepRecorder's methods through `contained`, until `remove()`."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, contained: Callable[..., Any]) -> None:
        self._contained = contained
        self._handles: list[Any] = [
            model.register_forward_pre_hook(ForwardHook(self._before_forward)),
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _before_forward(self, module: torch.nn.Module) -> None:
        self._contained(StepRecorder.before_forward, module)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        return self._contained(StepRecorder.before_step, optimizer, args, kwargs)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._contained(StepRecorder.after_step, optimizer)

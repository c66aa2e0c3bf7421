"""One optimizer that record() has found, with the module that owns its parameters, and what was seen of its loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from trajcheck.recording.model.recorded_model import name_filter
from trajcheck.recording.step.sample_state import AfterForwardHook, ForwardHook
from trajcheck.recording.unedited_loop.live_objects import live_optimizers, loss_modules, only_scaler, parameters_of
from trajcheck.recording.unedited_loop.loop_watch import LoopWatch, inputs_of, loss_in
from trajcheck.runs.canonical_names import canonical


class AttachedOptimizer:
    """Records `optimizer` into `path`. `model` owns its parameters; `called`, it or a part of it, the loop calls.

    Errors: those of Recorder.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        called: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: Mapping[str, Any],
    ) -> None:
        self.path = path
        self._model, self._called, self._optimizer = _kind(model), _kind(called), type(optimizer).__name__
        options = {"scaler": only_scaler(), **options}
        if others := _held_by_others(model, optimizer):
            wanted = name_filter(options.get("parameters"))
            options["parameters"] = lambda name: name not in others and wanted(name)
        self._targets = False
        self._start = options.get("start_step", 0)
        self._watch = LoopWatch(path, model, optimizer, **options)
        self._handles = [
            called.register_forward_pre_hook(ForwardHook(self.before_forward)),
            called.register_forward_hook(AfterForwardHook(self._after_forward), with_kwargs=True),
        ]
        self._losses = [
            module.register_forward_hook(AfterForwardHook(self._after_loss), with_kwargs=True)
            for module in loss_modules()
        ]

    def before_forward(self, module: nn.Module) -> None:
        self._watch.recorder.forward_begins(module)

    def close(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Record the final iterate and remove all hooks. Errors: those of Recorder.close()."""
        for handle in [*self._handles, *self._losses]:
            handle.remove()
        self._watch.__exit__(kind, error, trace)

    def said(self) -> str:
        """What was recorded, and what could not be seen."""
        seen, steps = self._watch, self._watch.recorder.step - self._start
        line = f"{self.path}: {steps} steps of {self._optimizer}, parameters of {self._model}"
        if not seen.batches:
            return f"{line}; no batch was seen, since no backward pass came through the output of {self._called}"
        line += f"; batches are the inputs of {self._called}"
        if self._targets:
            line += " and the targets that the loss is made with"
        if not seen.losses:
            return f"{line}; no loss and no targets were seen, so losses can be replayed only where inputs are enough"
        return line if seen.losses == seen.batches else f"{line}; the loss of some was not seen"

    def _after_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if module.training:
            self._watch.forward_ended(inputs_of(args, kwargs), loss_in(output), output)

    def _after_loss(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Of a loss module that was called with the model's output and something else, the targets."""
        if isinstance(output, torch.Tensor) and output.numel() == 1 and output.requires_grad:
            targets = inputs_of(args[1:], kwargs)
            self._targets = True
            self._watch.loss_seen(output, lambda batch: (batch, targets))


def _kind(module: nn.Module) -> str:
    return type(getattr(module, "_orig_mod", module)).__name__


def _held_by_others(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Names of the model's parameters that other optimizers train."""
    own = parameters_of(optimizer)
    other: set[int] = set()
    for rival in live_optimizers():
        other |= parameters_of(rival).keys()
    return {canonical(name) for name, p in model.named_parameters() if id(p) in other and id(p) not in own}

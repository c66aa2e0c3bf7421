"""The optimizers of one module that record() has found, and what was seen of their loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from trajcheck.recording.model.called import WatchedCalls
from trajcheck.recording.step.sample_state import AfterForwardHook
from trajcheck.recording.unedited_loop.live_objects import loss_modules
from trajcheck.recording.unedited_loop.loop_watch import LoopWatch, inputs_of


class AttachedOptimizers:
    """Records `optimizers` as one run into `path`. `model` owns their parameters; `called`, it or a part of it, the
    loop calls; `begun`: its forward has begun just now. What other optimizers train of the model is stored with each
    record, as it was at the step's forward.

    Errors: those of Recorder.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        called: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        options: Mapping[str, Any],
        begun: bool,
    ) -> None:
        self.path = path
        self._model, self._called = _kind(model), _kind(called)
        self._optimizers = " + ".join(type(optimizer).__name__ for optimizer in optimizers)
        self._targets = False
        self._start = options.get("start_step", 0)
        self._watch = LoopWatch(path, model, optimizers, **options)
        self._watch.recorder.watch_calls(called, begun=begun)
        self._calls = WatchedCalls(called, None, self._after_forward)
        self._losses = [
            module.register_forward_hook(AfterForwardHook(self._after_loss), with_kwargs=True)
            for module in loss_modules()
        ]

    def close(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Record the final iterate and remove all hooks. Errors: those of Recorder.close()."""
        self._calls.remove()
        for handle in self._losses:
            handle.remove()
        self._watch.__exit__(kind, error, trace)

    def said(self) -> str:
        """What was recorded, and what could not be seen."""
        seen, steps = self._watch, self._watch.recorder.step - self._start
        line = f"{self.path}: {steps} steps of {self._optimizers}, parameters of {self._model}"
        if not seen.batches:
            return f"{line}; no batch was seen, since no backward pass came through the output of {self._called}"
        line += f"; batches are the inputs of {self._called}"
        if self._targets:
            line += " and the targets that the loss is made with"
        if seen.functions and not self._targets:
            line += f"; losses are what backward() was called on, made of its output by {_listed(seen.functions)}"
            if not seen.without_targets:
                line += ", whose targets are recorded with the inputs"
        if seen.without_targets:
            line += (
                f"; of {seen.without_targets} batches targets are missing, since they cannot be seen where the loop or "
                "a function sums them: a loss module (nn.CrossEntropyLoss), or observe() of a Recorder, tells of them"
            )
        if seen.unweighed:
            line += (
                f"; the weight by which {seen.unweighed} of {seen.batches} losses count in their step is not known, "
                "and steps of several cannot be replayed on their own samples"
            )
        return line if seen.losses == seen.batches else f"{line}; the loss of {seen.batches - seen.losses} was not seen"

    def _after_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._watch.forward_ended(inputs_of(args, kwargs), output)

    def _after_loss(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Of a loss module that was called with the model's output and something else, the targets."""
        if isinstance(output, torch.Tensor) and output.numel() == 1 and output.requires_grad:
            targets = inputs_of(args[1:], kwargs)
            self._targets = True
            self._watch.loss_seen(output, lambda batch: (batch, targets))


def _kind(module: nn.Module) -> str:
    return type(getattr(module, "_orig_mod", module)).__name__


def _listed(functions: set[str]) -> str:
    return ", ".join(sorted(functions))

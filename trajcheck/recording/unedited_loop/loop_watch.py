"""A Recorder for loops that nobody edits: hooks on the model and its loss stand in for observe() and clipped().

A forward in training leaves a hook on its loss, or else on its output. When a backward pass comes by, the forward was
one of training, the gradient that arrives at the loss is its weight (1/4 after `(loss / 4).backward()`, times the loss
scale where there is one), and at the end of that pass batch and loss are observed. What is done to the gradients
between there and the optimizer's step is measured, not guessed from the clipping that somebody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.autograd import Variable

from trajcheck.recording.hooks import Call, watch_closure
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.step.gradient_watch import GradientWatch
from trajcheck.recording.unedited_loop.gradient_factor import GradientMeasures


@dataclass
class Forward:
    """A forward whose backward pass may come; `weight` is the gradient that the latest one left at the loss."""

    batch: Any
    loss: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    loss_is_known: bool = False


class LoopWatch:
    """Makes a Recorder of (path, model, optimizer, **options) and tells it what hooks see.

    `batches` and `losses` count the micro-batches of recorded or summed steps that were observed, and those of them
    whose loss was seen. Errors: those of Recorder.
    """

    def __init__(
        self, path: str | Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **options: Any
    ) -> None:
        self._optimizer = optimizer
        self._parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        self._scaler: torch.amp.GradScaler | None = options.get("scaler")
        self._accumulated = GradientWatch(self._parameters)
        self._measures: GradientMeasures | None = None
        self._latest: Forward | None = None
        self._reached: list[Forward] = []  # by the backward pass that is under way
        self.batches = self.losses = 0
        # Hooks run in the order in which they were made: what was done to the gradients is said before they are taken.
        before = optimizer.register_step_pre_hook(self._before_step)
        try:
            self.recorder = Recorder(path, model, optimizer, **options)
        except BaseException:
            before.remove()
            raise
        self._handles = [before]

    def __enter__(self) -> LoopWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the recorder and remove the hooks. Errors: those of Recorder.close()."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._reached, self._latest, self._measures = [], [], None, None
        self.recorder.__exit__(kind, error, trace)

    @property
    def wanted(self) -> bool:
        """Whether the coming step has to be observed: it is recorded or summed, or a loss scaler may skip it."""
        return self.recorder.watching or (self.recorder.active and self._scaler is not None)

    def forward_ended(self, batch: Any, loss: torch.Tensor | None, output: Any) -> None:
        """A forward of this batch gave this output, and in it this loss, or none."""
        self._reached = []  # of a backward pass that failed
        if not self.wanted:
            return
        self._latest = forward = Forward(batch)
        if loss is not None:
            self._expect(forward, loss)
        others = (tensor for tensor in tensors_in(output) if tensor.requires_grad and tensor is not loss)
        if (other := next(others, None)) is not None:
            other.register_hook(lambda gradient: self._guarded(lambda: self._arrived(forward)))

    def loss_seen(self, loss: torch.Tensor, batch_with: Callable[[Any], Any]) -> None:
        """Something else than the model made a loss of the latest output; `batch_with` adds what it took to the batch.

        Of two losses nobody knows what the loop makes of them: there is none then.
        """
        if self._latest is None:
            return
        if self._latest.loss_is_known:
            self._latest.loss_is_known = False
        elif self._latest.loss is None:
            self._latest.batch = batch_with(self._latest.batch)
            self._expect(self._latest, loss)

    def observe(self, batch: Any, loss: torch.Tensor, weight: float) -> None:
        """After a backward pass: it began at `loss`, which is the batch's times `weight` and the loss scale."""
        if self.wanted:
            self._guarded(lambda: self._say(batch, float(loss) / self._scale() / weight, weight))
            self._guarded(self._gradients_are_there)

    def _guarded(self, work: Callable[[], None]) -> None:
        """What a hook does: its failure stops the recording, and not the training."""
        if self.recorder.active:
            with self.recorder.guard:
                work()

    def _expect(self, forward: Forward, loss: torch.Tensor) -> None:
        forward.loss, forward.loss_is_known = loss.detach().clone(), True
        loss.register_hook(lambda gradient: self._guarded(lambda: self._arrived(forward, gradient)))

    def _arrived(self, forward: Forward, gradient: torch.Tensor | None = None) -> None:
        """A backward pass has reached the loss of a forward, or without a gradient its output."""
        if not self._reached:
            self._accumulated.note()
            Variable._execution_engine.queue_callback(lambda: self._guarded(self._backward_ended))
        if gradient is not None:
            forward.weight = gradient.detach().clone()
        if not any(forward is other for other in self._reached):
            self._reached.append(forward)

    def _backward_ended(self) -> None:
        reached, self._reached = self._reached, []
        # torch.autograd.grad leaves .grad as it is
        if self.wanted and not self._accumulated.untouched():
            unknown = []
            for forward in reached:
                if forward.loss is None or forward.weight is None or not forward.loss_is_known:
                    unknown.append(forward.batch)
                else:
                    self._say(forward.batch, forward.loss, float(forward.weight) / self._scale())
            if unknown:  # of one loss, as far as anybody knows
                self._say(unknown[0] if len(unknown) == 1 else tuple(unknown), math.nan, 1.0)
            self._gradients_are_there()
        for forward in reached:
            forward.weight = None

    def _say(self, batch: Any, loss: Any, weight: float) -> None:
        counted = self.recorder.watching
        self.recorder.observe(batch, loss, weight)
        self.batches += counted
        self.losses += counted and not math.isnan(loss)

    def _gradients_are_there(self) -> None:
        self._measures = GradientMeasures(self._parameters) if self.recorder.watching else None

    def _scale(self) -> float:
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Call | None:
        watched = watch_closure(args, kwargs, lambda: self._guarded(self._measure))
        if watched is None:
            self._guarded(self._measure)
        return watched

    def _measure(self) -> None:
        """Say by what the gradients were multiplied since the backward pass, apart from the loss scale."""
        measures, self._measures, self._latest = self._measures, None, None
        if measures is None or not self.recorder.watching:
            return
        unscaled = self._scaler is not None and getattr(self._optimizer, "grad_scale", None) is None
        if unscaled or not measures.untouched():
            factor = measures.factor()
            self.recorder.clipped(None if factor is None else factor * (self._scale() if unscaled else 1.0))


def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The batch of model(*args, **kwargs): its one argument, the tuple or the dict of them, or {"args", "kwargs"}."""
    if not kwargs:
        return args[0] if len(args) == 1 else args
    return {"args": args, "kwargs": dict(kwargs)} if args else dict(kwargs)


def loss_in(output: Any) -> torch.Tensor | None:
    """The loss that a model returned: a scalar by itself, under the name `loss`, or in the first place of a tuple."""
    loss = output
    if isinstance(output, Mapping):
        loss = output.get("loss")
    elif isinstance(output, tuple | list) and output:
        loss = output[0]
    elif not isinstance(output, torch.Tensor):
        loss = getattr(output, "loss", None)
    return loss if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.requires_grad else None


def tensors_in(output: Any) -> list[torch.Tensor]:
    """The tensors in an output of dicts, lists and tuples."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    return [tensor for item in output for tensor in tensors_in(item)] if isinstance(output, tuple | list) else []

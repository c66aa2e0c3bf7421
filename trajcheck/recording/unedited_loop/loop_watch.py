"""A Recorder for loops that nobody edits: hooks on the model and its loss stand in for observe() and clipped().

A forward leaves a hook on what may be its loss, and on its output. When a backward pass comes by, the forward was one
of training, and at the end of that pass batch and loss are observed: what backward() was called on is the loss as it
counts, and the gradient that arrived at the loss its weight (1/4 after `(loss / 4).backward()`, times the loss scale
where there is one). What is done to the gradients
between there and the optimizer's step is measured, not guessed from the clipping that somebody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import torch
from torch.autograd import Variable

from trajcheck.recording.hooks import Call, watch_closure
from trajcheck.recording.outside_graphs import outside_graphs
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.step.gradient_watch import GradientWatch
from trajcheck.recording.step.graph import tensors_in
from trajcheck.recording.unedited_loop.backward_passes import Root, mark_of, watch_backward_passes
from trajcheck.recording.unedited_loop.gradient_factor import GradientMeasures
from trajcheck.recording.unedited_loop.loss_scale import ScalerSearch
from trajcheck.recording.unedited_loop.loss_seen import (
    Observation,
    ReturnedLoss,
    SeenForward,
    observations,
    scalars_in,
)


class LoopWatch:
    """Makes a Recorder of (path, model, optimizer, **options), of one optimizer or several, and tells it what hooks
    see.

    `batches`, `losses` and `unweighed` count the micro-batches of recorded or summed steps that were observed, those of
    them whose loss was seen, and those whose loss counts by an unknown weight; `functions` are those that made losses
    outside of the model, as autograd names them, `without_targets` how many of these are of batches of inputs alone.
    Errors: those of Recorder.
    """

    def __init__(
        self,
        path: str | Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        **options: Any,
    ) -> None:
        optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        self._several = len(optimizers) > 1
        self._parameters = {
            id(each): [t for group in each.param_groups for t in group["params"]] for each in optimizers
        }
        self._scaler: torch.amp.GradScaler | None = options.get("scaler")
        self._scalers = ScalerSearch()
        self._accumulated = GradientWatch([tensor for each in self._parameters.values() for tensor in each])
        self._measures: dict[int, GradientMeasures] = {}  # of each optimizer's parameters
        self._stepped, self._factor = 0, cast(float | None, None)  # those that have, and by what gradients they did
        self._latest: SeenForward | None = None
        self._reached: list[SeenForward] = []  # by the backward pass that is under way
        self._passing = False  # whether one is, that was seen to begin
        self.batches = self.losses = self.unweighed = 0
        self.functions: set[str] = set()
        self.without_targets = 0
        # Hooks run in the order in which they were made: what was done to the gradients is said before they are taken.
        self._handles = [each.register_step_pre_hook(outside_graphs(self._before_step)) for each in optimizers]
        try:
            self.recorder = Recorder(path, model, optimizers if self._several else optimizers[0], **options)
        except BaseException:
            for handle in self._handles:
                handle.remove()
            raise
        self._unwatch = watch_backward_passes(self)

    def __enter__(self) -> LoopWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the recorder and remove the hooks. Errors: those of Recorder.close()."""
        self._unwatch()
        for handle in self._handles:
            handle.remove()
        self._handles, self._reached, self._latest, self._measures = [], [], None, {}
        self.recorder.__exit__(kind, error, trace)

    @property
    def wanted(self) -> bool:
        """Whether the coming step has to be observed: it is recorded or summed, or a loss scaler may skip it."""
        return self.recorder.watching or (self.recorder.active and self._scaler is not None)

    def forward_ended(self, batch: Any, output: Any) -> None:
        """A forward of this batch gave this output, and in it the loss, or several things that may be it, or none."""
        self._reached = []  # of a backward pass that failed
        if not self.wanted:
            return
        self._latest = forward = SeenForward(batch, self.recorder.latest_forward)
        losses = scalars_in(output)
        for loss in losses:
            self._expect(forward, loss, batch)
        for other in tensors_in(output):
            if other.requires_grad and not any(other is loss for loss in losses):
                other.register_hook(lambda gradient: self._guarded(lambda: self._arrived(forward)))
                break

    def loss_seen(self, loss: torch.Tensor, batch_with: Callable[[Any], Any]) -> None:
        """Something else than the model made a loss of the latest output; `batch_with` adds what it took to a batch."""
        if self._latest is not None:
            self._expect(self._latest, loss, batch_with(self._latest.batch))

    def observe(self, batch: Any, loss: torch.Tensor, weight: float) -> None:
        """After a backward pass: it began at `loss`, which is the batch's times `weight` and the loss scale."""
        if self.wanted:
            value = float(loss) / self._scale() / weight
            self._guarded(lambda: self._say(Observation(batch, value, weight, [])))
            self._guarded(self._gradients_are_there)

    def backward_begins(self, root: Root) -> None:
        """A backward pass, of whatever in this process, begins."""
        self._reached, self._passing = [], True
        if self._scaler is None:
            self._guarded(lambda: self._find_scaler(root))
        if self.wanted:
            self._guarded(root.measure)

    def _find_scaler(self, root: Root) -> None:
        self._scaler = self._scalers.of(root.tensors)
        if self._scaler is not None:
            self.recorder.use_scaler(self._scaler)

    def backward_ended(self, root: Root) -> None:
        self._passing = False
        if self._reached:
            self._guarded(lambda: self._gradients_made(root))

    def _guarded(self, work: Callable[[], None]) -> None:
        """What a hook does: its failure stops the recording, and not the training."""
        if self.recorder.active:
            with self.recorder.guard:
                work()

    def _expect(self, forward: SeenForward, loss: torch.Tensor, batch: Any) -> None:
        returned = ReturnedLoss(batch, loss.detach().clone(), mark_of(loss.grad_fn))
        forward.losses.append(returned)
        loss.register_hook(lambda gradient: self._guarded(lambda: self._arrived(forward, returned, gradient)))

    def _arrived(
        self, forward: SeenForward, loss: ReturnedLoss | None = None, gradient: torch.Tensor | None = None
    ) -> None:
        """A backward pass has reached the output of a forward, and what may be its loss with this gradient."""
        if not self._reached:
            self._accumulated.note()
            if not self._passing:  # one that began where nobody saw it
                Variable._execution_engine.queue_callback(lambda: self._guarded(lambda: self._gradients_made(None)))
        if loss is not None and gradient is not None:
            loss.gradient = gradient.detach().clone()
        if not any(forward is other for other in self._reached):
            self._reached.append(forward)

    def _gradients_made(self, root: Root | None) -> None:
        """At the end of a backward pass: observe the micro-batches that it came through."""
        reached, self._reached = self._reached, []
        # torch.autograd.grad leaves .grad as it is
        if self.wanted and not self._accumulated.untouched():
            for observation in observations(reached, root, self._scale()):
                self._say(observation)
                self.functions.update(observation.made_by)
            self._gradients_are_there()
        for forward in reached:
            for loss in forward.losses:
                loss.gradient = None

    def _say(self, seen: Observation) -> None:
        counted = self.recorder.watching
        self.recorder.observe_known(seen.batch, seen.loss, seen.weight, seen.forwards, seen.lacks)
        self.batches += counted
        self.losses += counted and not math.isnan(seen.loss)
        self.unweighed += counted and seen.weight is None
        self.without_targets += counted and bool(seen.lacks)

    def _gradients_are_there(self) -> None:
        self._measures, self._stepped = {}, 0
        if self.recorder.watching:
            self._measures = {each: GradientMeasures(tensors) for each, tensors in self._parameters.items()}

    def _scale(self) -> float:
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Call | None:
        watched = None if self._several else watch_closure(args, kwargs, lambda: self._guarded(measure))

        def measure() -> None:
            self._measure(optimizer)

        if watched is None:
            self._guarded(measure)
        return watched

    def _measure(self, optimizer: torch.optim.Optimizer) -> None:
        """Say by what the gradients were multiplied since the backward pass, apart from the loss scale."""
        measures, self._latest = self._measures.pop(id(optimizer), None), None
        if measures is None or not self.recorder.watching or (self._several and measures.vanished):
            return
        unscaled = self._scaler is not None and getattr(optimizer, "grad_scale", None) is None
        if not unscaled and measures.untouched():
            factor: float | None = 1.0
        else:
            factor = measures.factor()
            factor = None if factor is None else factor * (self._scale() if unscaled else 1.0)
        if self._stepped == 0:
            self._factor = factor
            if unscaled or factor != 1.0:
                self.recorder.clipped(factor)
        elif not self._same(factor, measures.rounding):
            self.recorder.clipped(None)  # of several optimizers each has been clipped by another factor
        self._stepped += 1

    def _same(self, factor: float | None, rounding: float) -> bool:
        """Whether a factor is that of the optimizers which have stepped, as far as those are known."""
        if factor is None or self._factor is None:
            return self._factor is None
        return math.isclose(factor, self._factor, rel_tol=rounding)


def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The batch of model(*args, **kwargs): its one argument, the tuple or the dict of them, or {"args", "kwargs"}."""
    if not kwargs:
        return args[0] if len(args) == 1 else args
    return {"args": args, "kwargs": dict(kwargs)} if args else dict(kwargs)

"""What the training loop tells about the coming step: its micro-batches, their losses, their randomness, clipping."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trajcheck.batch_tree import Tree, flatten, unflatten
from trajcheck.errors import RecorderError
from trajcheck.gradient_watch import GradientWatch
from trajcheck.recorded_model import RecordedModel
from trajcheck.sample_state import ForwardState, capture, consumed, devices_of, to_host


@dataclass
class MicroBatch:
    tensors: dict[str, torch.Tensor]
    tree: Tree | None
    loss: float
    weight: float
    state: ForwardState | None
    consumed: dict[str, bool]


class Observations:
    """Collects the observations of one step, and forgets those whose gradients were cleared without a step.

    `micro_batches` are those of a step that is recorded; `rates` those of its update, where a loss scaler may skip it.
    """

    def __init__(self, recorded: RecordedModel, model: torch.nn.Module, scaler: torch.amp.GradScaler | None) -> None:
        self._recorded, self._scaler = recorded, scaler
        self._devices = devices_of(model)
        self._random = any(isinstance(module, torch.nn.modules.dropout._DropoutNd) for module in model.modules())
        self._watch = GradientWatch(recorded.watched)
        self._state: ForwardState | None = None
        self._saw_forward = self._warned = False
        self.micro_batches: list[MicroBatch] = []
        self._clips: list[Callable[[], float]] = []
        self.rates: list[float] | None = None
        self._scale: float | None = None

    def reset(self) -> None:
        """Forget everything: the step was made, or its gradients cleared."""
        self.micro_batches = []
        self._clips = []
        self._state = None
        self.rates = self._scale = None

    def forward_begins(self, module: torch.nn.Module) -> None:
        """Keep the state in which the forward of the coming micro-batch begins.

        The first forward counts, but one in training mode replaces one in evaluation mode.
        """
        if self.micro_batches and self._watch.cleared():
            self.reset()
        if self._state is None or (module.training and not self._state.training):
            self._state = capture(module, self._devices, self._recorded.buffers)
            self._saw_forward = True

    def add(self, batch: Any, loss: Any, weight: float) -> None:
        """One micro-batch, its tensors copied to host memory."""
        if self.micro_batches and self._cleared_before_observation():
            state = self._state
            self.reset()
            self._state = state
        if self._state is None and not self.micro_batches:
            self._check_place()
        tensors, tree = flatten(batch)
        self.micro_batches.append(
            MicroBatch(
                tensors={path: to_host(tensor) for path, tensor in tensors.items()},
                tree=tree,
                loss=_scalar(loss),
                weight=float(weight),
                state=self._state,
                consumed={} if self._state is None else consumed(self._state, self._devices),
            )
        )
        self._state = None

    def _cleared_before_observation(self) -> bool:
        if self._state is None:  # no forward since the last observation, so perhaps a second batch of one backward
            return self._watch.cleared()
        return self._watch.all_none() or self._watch.replaced()

    def _check_place(self) -> None:
        if self._saw_forward:
            raise RecorderError(
                "observe() was called although the model has not run since the last step. Call it after the backward "
                "pass and before optimizer.step(), inside the closure if the optimizer is given one."
            )
        if (self._random or self._recorded.buffers) and not self._warned:
            self._warned = True
            warnings.warn(
                "the model that the Recorder was given has not been called (a submodule, or a compiled "
                "copy of it, was), so the randomness and the buffers of its samples are not "
                "recorded. Give the Recorder what is called.",
                RuntimeWarning,
                stacklevel=6,
            )

    def note(self, rates: Callable[[], list[float] | None]) -> None:
        """Remember the gradients, and with a loss scaler its scale and the rates, as they are after an observation."""
        if self.micro_batches:
            self._watch.note()
        if self._scaler is not None:
            self.rates, self._scale = rates(), self._scaler.get_scale()

    def skipped(self) -> bool:
        """Whether the loss scaler has skipped the observed step: its scale has fallen since."""
        return self._scaler is not None and self._scale is not None and self._scaler.get_scale() < self._scale

    def drop_if_cleared(self) -> None:
        """At the step itself: without any gradient there is nothing that the observations belong to."""
        if self.micro_batches and self._watch.all_none():
            self.reset()

    def clip(self, factor: Callable[[], float]) -> None:
        """Note a factor (nan: unknown); it is computed when the step is recorded, not in between."""
        self._clips.append(factor)

    def take(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors (`batch/...`, `buffer/...`, `rng/...`) and metadata of the observed step."""
        tensors: dict[str, torch.Tensor] = {}
        metadata: dict[str, Any] = {}
        if self._clips:
            clip = math.prod(factor() for factor in self._clips)
            metadata["clip"] = clip if math.isfinite(clip) else None
        if not self.micro_batches:
            return tensors, metadata
        several = len(self.micro_batches) > 1
        batches = tuple(unflatten(micro_batch.tensors, micro_batch.tree) for micro_batch in self.micro_batches)
        flat, tree = flatten(batches if several else batches[0])
        tensors.update({f"batch/{path}" if path else "batch": tensor for path, tensor in flat.items()})
        if tree is not None:
            metadata["batch_tree"] = tree
        weights = [micro_batch.weight for micro_batch in self.micro_batches]
        if several:
            metadata["micro_batches"] = len(weights)
        if several or weights != [1.0]:
            metadata["micro_weights"] = weights
        loss = math.fsum(m.weight * m.loss for m in self.micro_batches) if self._losses_finite() else math.nan
        if math.isfinite(loss):
            metadata["loss"] = loss
        self._take_states(tensors, metadata)
        return tensors, metadata

    def _losses_finite(self) -> bool:
        return all(math.isfinite(micro_batch.loss) for micro_batch in self.micro_batches)

    def _take_states(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        states = [micro_batch.state for micro_batch in self.micro_batches]
        first = states[0]
        if first is None:
            return
        tensors.update({f"buffer/{name}": buffer for name, buffer in first.buffers.items()})
        if first.autocast is not None:
            metadata["autocast"] = first.autocast
        if all(state is not None for state in states):
            for device in first.generators:
                if any(micro_batch.consumed[device] for micro_batch in self.micro_batches):
                    drawn = [state.generators[device] for state in states if state is not None]
                    tensors[f"rng/{device}"] = torch.stack(drawn)


def _scalar(loss: Any) -> float:
    if isinstance(loss, torch.Tensor):
        if loss.numel() != 1:
            raise RecorderError(
                f"observe() was given a loss of shape {tuple(loss.shape)}; expected the scalar "
                "that backward() was called on."
            )
        loss = loss.detach().item()
    if not isinstance(loss, int | float):
        raise RecorderError(
            f"observe() was given a loss of type {type(loss).__name__}; expected a scalar tensor or number."
        )
    return float(loss)

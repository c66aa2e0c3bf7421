"""What the training loop tells about the coming step: its micro-batches, their losses, their randomness, clipping."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from trajcheck.errors import RecorderError
from trajcheck.objective.devices import devices_of
from trajcheck.recording.model.recorded_model import RecordedModel, to_host
from trajcheck.recording.model.surroundings import Captured, Surroundings
from trajcheck.recording.step.forwards import Forward, Forwards, SampleStates
from trajcheck.recording.step.gradient_watch import GradientWatch
from trajcheck.recording.step.sample_state import ForwardState, capture, consumed
from trajcheck.recording.step.window_sums import Factor
from trajcheck.runs.batch_flattening import flatten, together
from trajcheck.runs.batch_tree import Tree

#: Why a step has no batch though some were observed.
DROPPED = (
    "the gradients of what was observed ({} times) were cleared before the optimizer's step. Call observe() after the "
    "last backward pass before that step; under SAM that at x_t + e, whose batch is then replayed at x_t"
)


@dataclass
class Clip:
    """A factor of the gradients: as it is stored with a record, computed only then (nan: unknown), and as it was
    applied, on its device (None: unknown)."""

    value: Callable[[], float]
    factor: Factor | None


def clip_to_norm(norm: torch.Tensor, max_norm: float, *, now: bool) -> Clip:
    """What torch.nn.utils.clip_grad_norm_ does to gradients of this norm; `now`: the factor on its device as well."""
    applied = torch.clamp(max_norm / (norm + 1e-6), max=1.0) if now else None
    return Clip(lambda: min(1.0, max_norm / (float(norm) + 1e-6)), applied)


def clip_by(factor: float | None) -> Clip:
    """A factor that is given; None or not finite: unknown."""
    known = float(factor) if factor is not None and math.isfinite(factor) else None
    return Clip(lambda: math.nan if known is None else known, known)


@dataclass
class MicroBatch:
    tensors: dict[str, torch.Tensor]
    tree: Tree | None
    loss: float
    weight: float | None
    forwards: SampleStates
    consumed: dict[str, bool]
    lost: str = ""  # why the batch cannot be stored
    lacks: str = ""  # what it may be without, and why

    @property
    def state(self) -> ForwardState | None:
        """In which its first forward began."""
        return self.forwards.states[0] if self.forwards.states else None


class Observations:
    """Collects the observations of one step, and forgets those whose gradients were cleared without a step.

    `micro_batches` are those of a step that is recorded; `rates` those of its update, where a loss scaler may skip it.
    Of a step that is not recorded, but summed (`full=False`), only losses and clipping are kept, on their device.
    """

    def __init__(
        self,
        recorded: RecordedModel,
        model: torch.nn.Module,
        surroundings: Surroundings,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self._recorded, self._model, self._surroundings, self.scaler = recorded, model, surroundings, scaler
        self._devices = devices_of(model)
        self._random = any(isinstance(module, torch.nn.modules.dropout._DropoutNd) for module in model.modules())
        self._watch = GradientWatch(recorded.watched, shared=recorded.ranks.count > 1)
        self._forwards = Forwards(self._devices, lambda: list(recorded.buffers.values()))
        self._saw_forward = self._warned = self._warned_of_batch = False
        self._forward = False  # whether one has begun since the last observation
        self._new_pass = False  # or since the gradients were last noted
        self._accumulates = False  # whether any step had several micro-batches
        self._doubtful = False  # whether losses or clipping may be those of gradients that are gone
        self.micro_batches: list[MicroBatch] = []
        self._losses: list[Factor] = []  # weighted
        self._clips: list[Clip] = []
        self.rates: list[float] | None = None
        self._scale: float | None = None
        self._dropped = 0  # observations of the coming step that were of gradients which were cleared

    def follow(self) -> None:
        """Other parameters are trained from now on."""
        self._watch = GradientWatch(self._recorded.watched, shared=self._recorded.ranks.count > 1)
        if self._noted:
            self._watch.note()

    def reset(self) -> None:
        """Forget everything: the step was made."""
        self._forget_earlier_pass()
        self._dropped = 0
        self._forwards.reset()
        self._forward = self._new_pass = False

    def forward_begins(self, module: torch.nn.Module, full: bool = True, told: bool = False) -> None:
        """A forward of the model, or of what is around it, begins; `told`: that of the coming loss, as somebody says.

        Of a step that is recorded in full, the state in which it begins is kept until it is known whose it was.
        """
        if self._noted and self._watch.cleared():
            self._drop()
        self._saw_forward = self._forward = self._new_pass = True
        if full:
            begins = self._forwards.told if told else self._forwards.begins
            begins(module, lambda: capture(module, self._model, self._devices, self._surroundings))

    def forward_ended(self, module: torch.nn.Module, output: Any) -> None:
        self._forwards.ended(module, output)

    @property
    def latest_forward(self) -> Forward | None:
        """The last that ended since the last step, of one that is recorded in full."""
        return self._forwards.latest

    def add(
        self,
        batch: Any,
        loss: Any,
        weight: float | None,
        full: bool = True,
        forwards: Sequence[Forward] = (),
        lacks: str = "",
    ) -> None:
        """One micro-batch, its tensors copied to host memory. `weight` None: unknown, and the loss is as it counts.
        `forwards` made it; none: the loss's graph tells."""
        if self._noted:
            if self._cleared_before_observation():
                self._drop()
            elif self._may_mix_passes():
                self._doubtful = True
        if not self._forward and not self._losses:
            self._check_place(full)
        counted = 1.0 if weight is None else float(weight)
        self._losses.append(counted * (_scalar(loss) if full else _lazy_scalar(loss)))
        self._accumulates |= len(self._losses) > 1
        if full:
            self.micro_batches.append(replace(self._micro_batch(batch, loss, weight, forwards), lacks=lacks))
        self._forward = False

    def _micro_batch(self, batch: Any, loss: Any, weight: float | None, forwards: Sequence[Forward]) -> MicroBatch:
        tensors, tree, lost = self._stored(batch)
        made = self._forwards.of_forwards(forwards) if forwards else self._forwards.of(loss)
        return MicroBatch(
            tensors=tensors,
            tree=tree,
            loss=_scalar(loss),
            weight=None if weight is None else float(weight),
            forwards=made,
            consumed=consumed(made.states[0], self._devices) if made.states else {},
            lost=lost,
        )

    def _stored(self, batch: Any) -> tuple[dict[str, torch.Tensor], Tree | None, str]:
        """Copies of a batch's tensors and its tree; or none, and why it cannot be stored, which is said once."""
        try:
            tensors, tree = flatten(batch)
            return {path: to_host(tensor) for path, tensor in tensors.items()}, tree, ""
        except Exception as error:
            reason = str(error) if isinstance(error, RecorderError) else f"{type(error).__name__}: {error}"
        if not self._warned_of_batch:
            self._warned_of_batch = True
            warnings.warn(
                f"this batch, and others like it, cannot be stored: {reason} Parameters and gradients are recorded; "
                "losses cannot be replayed on these samples.",
                RuntimeWarning,
                stacklevel=6,
            )
        return {}, None, reason

    @property
    def losses(self) -> int:
        """How many were observed for the coming step."""
        return len(self._losses)

    @property
    def _noted(self) -> bool:
        """Whether something was said about the gradients of the coming step."""
        return bool(self._losses or self._clips)

    def _cleared_before_observation(self) -> bool:
        if not self._new_pass:  # no forward since the gradients were noted, so perhaps a second batch of one backward
            unseen = not self._saw_forward and not self._watch.untouched()
            return self._watch.cleared() or (unseen and self._watch.replaced())
        return self._watch.all_none() or self._watch.replaced()

    def _drop(self) -> None:
        """Of gradients that were cleared."""
        self._dropped += len(self.micro_batches)
        self._forget_earlier_pass()

    def _forget_earlier_pass(self) -> None:
        """What was said belongs to gradients that were cleared. A forward since may be of those that come."""
        self.micro_batches = []
        self._losses = []
        self._clips = []
        self._doubtful = False
        self.rates = self._scale = None

    def _may_mix_passes(self) -> bool:
        """Whether what was said of earlier gradients may not belong to these, or their clipping not to all of them."""
        unseen = not self._saw_forward and self._watch.untouched()
        return unseen or (bool(self._clips) and self._new_pass) or self._watch.zeroed_perhaps()

    def _check_place(self, full: bool) -> None:
        if self._saw_forward:
            raise RecorderError(
                "observe() was called although the model has not run since the last step. Call it after the backward "
                "pass and before optimizer.step(), inside the closure if the optimizer is given one."
            )
        if full and (self._random or self._recorded.buffers) and not self._warned:
            self._warned = True
            warnings.warn(
                "the model that the Recorder was given has not been called (a submodule, or a compiled "
                "copy of it, was), so the randomness and the buffers of its samples are not "
                "recorded. Give the Recorder what is called.",
                RuntimeWarning,
                stacklevel=5,
            )

    def note(self, rates: Callable[[], list[float] | None]) -> None:
        """Remember the gradients, and with a loss scaler its scale and the rates, as they are after an observation."""
        if self._losses:
            self._note_gradients()
        if self.scaler is not None:
            self.rates, self._scale = rates(), self.scaler.get_scale()

    def skipped(self) -> bool:
        """Whether the loss scaler has skipped the observed step: its scale has fallen since."""
        return self.scaler is not None and self._scale is not None and self.scaler.get_scale() < self._scale

    def drop_if_cleared(self) -> None:
        """At the step itself: without any gradient there is nothing that the observations belong to."""
        if self._noted and self._watch.all_none():
            dropped = self._dropped + len(self.micro_batches)
            self.reset()
            self._dropped = dropped

    def clip(self, clip: Clip) -> None:
        """Note a factor that the gradients have just been multiplied by."""
        if self._noted and self._new_pass and (self._watch.all_none() or self._watch.replaced()):
            self._drop()
        elif self._clips and (self._new_pass or not self._saw_forward or self._watch.zeroed_perhaps()):
            self._doubtful = True
        self._clips.append(clip)
        self._note_gradients()

    def factors(self) -> list[Factor] | None:
        """What the gradients of the coming step were multiplied by; None where that is not known."""
        if self._watch.all_none():
            return []
        factors = [clip.factor for clip in self._clips]
        if any(factor is None for factor in factors) or (factors and self._doubtful):
            return None
        return [factor for factor in factors if factor is not None]

    def loss(self) -> Factor | None:
        """f of the observed step, on its device; None where it is not known."""
        if not self._losses or self._doubtful:
            return None
        total, *others = self._losses
        for loss in others:
            total = total + loss
        return total

    def _note_gradients(self) -> None:
        self._watch.note()
        self._new_pass = False

    def take(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors (`batch/...`, `rng/...`) and metadata of the observed step."""
        tensors: dict[str, torch.Tensor] = {}
        metadata: dict[str, Any] = {}
        if self._clips:
            clip = math.prod(clip.value() for clip in self._clips)
            metadata["clip"] = clip if math.isfinite(clip) and not self._doubtful else None
        if not self.micro_batches:
            if self._dropped:
                metadata["omitted"] = {"batch": DROPPED.format(self._dropped)}
            return tensors, metadata
        several = len(self.micro_batches) > 1
        lost = next((each.lost for each in self.micro_batches if each.lost), "")
        if not lost:
            batches = [(micro_batch.tensors, micro_batch.tree) for micro_batch in self.micro_batches]
            flat, tree = together(batches) if several else batches[0]
            tensors.update({f"batch/{path}" if path else "batch": tensor for path, tensor in flat.items()})
            if tree is not None:
                metadata["batch_tree"] = tree
        weights = [micro_batch.weight for micro_batch in self.micro_batches]
        if weights == [None] and not self._accumulates:
            weights = [1.0]  # f is the loss of this batch, as it counted
        if several:
            metadata["micro_batches"] = len(weights)
        if several or weights != [1.0]:
            metadata["micro_weights"] = weights
        counted = [(1.0 if m.weight is None else m.weight) * m.loss for m in self.micro_batches]
        loss = math.fsum(counted) if all(map(math.isfinite, counted)) else math.nan
        if math.isfinite(loss):
            metadata["loss"] = loss
        self._take_states(tensors, metadata)
        without = {"batch": lost} if lost else {"targets": next((m.lacks for m in self.micro_batches if m.lacks), "")}
        if without := {what: reason for what, reason in without.items() if reason}:
            metadata["omitted"] = {**metadata.get("omitted", {}), **without}
        return tensors, metadata

    @property
    def surroundings(self) -> Captured | None:
        """Frozen parameters and buffers as the observed step's first forward saw them; None where none was seen."""
        states = [micro_batch.state for micro_batch in self.micro_batches]
        return states[0].surroundings if states and states[0] is not None else None

    def _take_states(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        """Buffers and autocast of the first forward, the generators of all; and why something of it is not known."""
        of_loss = [micro_batch.forwards for micro_batch in self.micro_batches]
        reasons = {
            "randomness": next((each.no_randomness for each in of_loss if each.no_randomness), ""),
            "replay": next((each.no_replay for each in of_loss if each.no_replay), ""),
        }
        if omitted := {what: reason for what, reason in reasons.items() if reason}:
            metadata["omitted"] = omitted
        first = self.micro_batches[0].state
        if first is None:
            return
        states = [state for each in self.micro_batches if (state := each.state) is not None]
        if any(state.modes != first.modes for state in states):
            reason = "its micro-batches were made in different modes of the model's modules"
            metadata.setdefault("omitted", {}).setdefault("replay", reason)
        metadata["modes"] = first.modes
        if first.autocast is not None:
            metadata["autocast"] = first.autocast
        if not all(each.states for each in of_loss) or reasons["randomness"]:
            return
        counts = [len(each.states) for each in of_loss]
        for device in first.generators:
            if any(micro_batch.consumed[device] for micro_batch in self.micro_batches):
                drawn = [state.generators[device] for each in of_loss for state in each.states]
                tensors[f"rng/{device}"] = torch.stack(drawn)
                if counts != [1] * len(counts):
                    metadata["forwards"] = counts


def _lazy_scalar(loss: Any) -> Factor:
    """The loss as it is now, without waiting for its device."""
    if isinstance(loss, torch.Tensor) and loss.device.type != "cpu":
        _check_scalar(loss)
        return loss.detach().reshape(()).to(torch.float64, copy=True)
    return _scalar(loss)


def _check_scalar(loss: torch.Tensor) -> None:
    if loss.numel() != 1:
        raise RecorderError(
            f"observe() was given a loss of shape {tuple(loss.shape)}; expected the scalar "
            "that backward() was called on."
        )


def _scalar(loss: Any) -> float:
    if isinstance(loss, torch.Tensor):
        _check_scalar(loss)
        loss = loss.detach().item()
    if not isinstance(loss, int | float):
        raise RecorderError(
            f"observe() was given a loss of type {type(loss).__name__}; expected a scalar tensor or number."
        )
    return float(loss)

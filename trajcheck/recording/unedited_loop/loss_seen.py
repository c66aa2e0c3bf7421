"""What a loop makes of the losses that the model returned: which of them it is that counts, and by what weight.

f of a micro-batch is what backward() was called on, divided by the loss scale. Where that is the loss that the model
returned (or that a loss module made) times a number, this number is the micro-batch's weight. Elsewhere (the loop adds
a penalty, or a function made the loss) the value is known, and the weight only if nothing was multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trajcheck.recording.step.forwards import Forward
from trajcheck.recording.step.graph import named_tensors_in
from trajcheck.recording.unedited_loop.backward_passes import Root

#: What backward() was called on may differ from weight times loss by so many units of rounding of its dtype.
ROUNDING = 4


@dataclass(eq=False)
class ReturnedLoss:
    """A scalar that may be the loss: the batch that gave it, its value, and the gradient that the latest backward pass
    left there."""

    batch: Any
    value: torch.Tensor
    gradient: torch.Tensor | None = None


@dataclass(eq=False)
class SeenForward:
    """A forward whose backward pass may come, with what may be its loss, likeliest first. `forward`: the Recorder's
    own note of it, where the step is recorded."""

    batch: Any
    forward: Forward | None = None
    losses: list[ReturnedLoss] = field(default_factory=list)


@dataclass
class Observation:
    """A micro-batch to record; `weight` None: unknown, and `loss` is then as it counts; nan: unknown too. `made_by` are
    the functions that made it where that was neither the model nor a loss module."""

    batch: Any
    loss: float
    weight: float | None
    forwards: list[Forward]
    made_by: list[str] = field(default_factory=list)


def scalars_in(output: Any) -> list[torch.Tensor]:
    """The scalars with a gradient that a model returned, anywhere in its output; what is called `loss` comes first."""
    named = [
        (name, tensor)
        for name, tensor in named_tensors_in(output)
        if tensor.numel() == 1 and tensor.requires_grad and tensor.is_floating_point()
    ]
    return [tensor for name, tensor in sorted(named, key=lambda each: each[0] != "loss")]


def loss_in(output: Any) -> torch.Tensor | None:
    """The likeliest of them."""
    return next(iter(scalars_in(output)), None)


def observations(reached: Sequence[SeenForward], root: Root | None, scale: float) -> list[Observation]:
    """The micro-batches of one backward pass, which came through these forwards. `root` None: where it began was not
    seen, and the loss is taken to be the likeliest one."""
    if root is None:
        parts = [_part(forward, forward.losses[:1], scale) for forward in reached]
        known = [part for part in parts if part is not None]
        unknown = [forward for forward, part in zip(reached, parts, strict=True) if part is None]
        return known + ([_together(unknown, math.nan, None)] if unknown else [])
    total = root.value / scale
    parts = [_part(forward, [loss], scale) for forward in reached[:1] for loss in forward.losses]
    if len(reached) > 1:
        parts = [_part(forward, forward.losses[:1], scale) for forward in reached]
        if None not in parts and _is(total, [part for part in parts if part is not None], root.rounding):
            return [part for part in parts if part is not None]
    else:
        for part in parts:
            if part is not None and _is(total, [part], root.rounding):
                return [part]
    factor = root.factor
    plain = factor is not None and math.isclose(factor, scale, rel_tol=1e-6)
    return [replace(_together(reached, total, 1.0 if plain else None), made_by=root.made_by)]


def _part(forward: SeenForward, losses: Sequence[ReturnedLoss], scale: float) -> Observation | None:
    """The forward by the one of these losses, if the backward pass came through it."""
    for loss in losses:
        if loss.gradient is not None:
            return Observation(loss.batch, float(loss.value), float(loss.gradient) / scale, _noted([forward]))
    return None


def _is(total: float, parts: Sequence[Observation], rounding: float) -> bool:
    """Whether f is the sum of these, within rounding."""
    terms = [part.weight * part.loss for part in parts if part.weight is not None]
    size = math.fsum(map(abs, terms))
    if not math.isfinite(total) or not math.isfinite(size):
        return True  # a step that overflows: it is no other loss for that
    return abs(total - math.fsum(terms)) <= ROUNDING * rounding * (size + abs(total))


def _together(forwards: Sequence[SeenForward], loss: float, weight: float | None) -> Observation:
    """Of one loss, as far as anybody knows."""
    batches = [forward.losses[-1].batch if forward.losses else forward.batch for forward in forwards]
    batch = batches[0] if len(batches) == 1 else tuple(batches)
    return Observation(batch, loss, weight, _noted(forwards))


def _noted(forwards: Sequence[SeenForward]) -> list[Forward]:
    return [each.forward for each in forwards if each.forward is not None]

"""What a loop makes of the losses that the model returned: which of them it is that counts, and by what weight.

f of a micro-batch is what backward() was called on, divided by the loss scale. Where that is the loss that the model
returned (or that a loss module made) times a number, this number is the micro-batch's weight; so it is where one
function such as F.cross_entropy made it, whose targets autograd keeps. Elsewhere (the loop adds a penalty, or sums by
itself) the value is known, and the weight only if nothing was multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trajcheck.recording.step.forwards import Forward
from trajcheck.recording.step.graph import named_tensors_in
from trajcheck.recording.unedited_loop.backward_passes import Root

#: Of a batch without targets, the functions that made its loss being given.
LACKS = (
    "the loss was made by {}, outside of the model, and what it took beside the model's output cannot be seen: the "
    "batches are the model's inputs alone. Let a loss module make it (nn.CrossEntropyLoss), or the model return it, or "
    "record by trajcheck.Recorder, whose observe((inputs, targets), loss) is told of all"
)
SEVERAL = (
    "several loss modules made the loss of one output, and the batches have the targets of the last of them alone. Let "
    "one module make it, or the model return it, or record by trajcheck.Recorder, whose observe((inputs, *targets), "
    "loss) is told of all"
)
WEIGHED = (
    "the loss weighed each example by tensors of its own (weight= or pos_weight= of a binary cross entropy), of which "
    "the batches have none. Let the model return the loss, or record by trajcheck.Recorder, whose observe((inputs, "
    "targets, weights), loss) is told of all"
)
#: What backward() was called on may differ from weight times loss by so many units of rounding of its dtype.
ROUNDING = 4


@dataclass(eq=False)
class ReturnedLoss:
    """A scalar that may be the loss: the batch that gave it, its value, the mark of its node, and the gradient that the
    latest backward pass left there."""

    batch: Any
    value: torch.Tensor
    mark: Hashable = None
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
    the functions that made it where that was neither the model nor a loss module, and `lacks` says why the batch may
    not be all that made the loss, and what to do; '' where it is, as far as is known."""

    batch: Any
    loss: float
    weight: float | None
    forwards: list[Forward]
    made_by: list[str] = field(default_factory=list)
    lacks: str = ""


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
    return [_weighed(each, reached, root) for each in _from(reached, root, scale)]


def _from(reached: Sequence[SeenForward], root: Root, scale: float) -> list[Observation]:
    """The same of a backward pass that was seen to begin."""
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
    return [_of_functions(reached, root, total, scale)]


def _weighed(seen: Observation, reached: Sequence[SeenForward], root: Root) -> Observation:
    """With the weights of each example, where others than the model made the loss with them."""
    if not root.weights or seen.lacks or any(seen.batch is forward.batch for forward in reached):
        return seen
    alone = len(reached) == len(root.weights) == 1 and isinstance(seen.batch, tuple) and len(seen.batch) == 2
    return replace(seen, batch=(*seen.batch, root.weights[0])) if alone else replace(seen, lacks=WEIGHED)


def _of_functions(reached: Sequence[SeenForward], root: Root, total: float, scale: float) -> Observation:
    """Of a loss that functions made of what the model returned."""
    factor, loss, weight = root.factor, total, None
    if factor is not None and math.isclose(factor, scale, rel_tol=1e-6):
        weight = 1.0
    elif factor and math.isfinite(factor) and root.mean and root.targets is not None:
        weight = factor / scale
        loss = total / weight
    seen = replace(_together(reached, loss, weight), made_by=root.made_by)
    known = [loss for forward in reached for loss in forward.losses if root.made_of(loss.mark)]
    if len({id(loss.batch) for loss in known}) > len(reached):
        return replace(seen, lacks=SEVERAL)
    if known:
        return seen
    if len(reached) == 1 and root.targets is not None:
        return replace(seen, batch=(seen.batch, root.targets))
    return replace(seen, lacks=LACKS.format(" and ".join(root.made_by) or "something"))


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

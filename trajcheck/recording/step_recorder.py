"""What is taken of each step: before, inside and after `optimizer.step()`."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import torch

from trajcheck.errors import RecorderError
from trajcheck.recording.step.forwards import Forward
from trajcheck.recording.step.gradient_watch import GradientWatch
from trajcheck.recording.step.observations import clip_by, clip_to_norm
from trajcheck.recording.step.places import Place
from trajcheck.recording.step.step_records import StepRecords
from trajcheck.recording.step_ends import StepEnds
from trajcheck.recording.step_parts import StepParts


class StepRecorder:
    """Follows a training loop step by step.

    The methods raise what goes wrong in them; whoever calls does so inside a Guard, which keeps it from the training
    loop.
    """

    def __init__(self, parts: StepParts, ends: StepEnds) -> None:
        self._of, self._ends = parts, ends

    @property
    def step(self) -> int:
        """The number t of the next update."""
        return self._of.step

    @property
    def records(self) -> StepRecords:
        """What puts together what is recorded."""
        return self._of.records

    @property
    def watching(self) -> bool:
        """Whether anything of the coming step is wanted: its record, or its part of the sums."""
        return self._of.watching

    @property
    def noting(self) -> bool:
        """Whether its loss and its gradients are, for that or for the numbers of every step."""
        return self._of.noting

    def observe(
        self, batch: Any, loss: Any, weight: float | None, forwards: Sequence[Forward] = (), lacks: str = ""
    ) -> None:
        """`weight` None: unknown. `forwards`: those that made the loss, where it is known; none: its graph tells.
        `lacks`: what the batch is without."""
        if self._of.evaluated:
            return
        self._ends.settle()
        if self._of.scheduled:
            self._of.vectors.await_devices(self._of.spent)
        forward: Place | None = None
        if self._of.noting:
            self._of.observations.add(batch, loss, weight, full=self._of.scheduled, forwards=forwards, lacks=lacks)
            if self._of.micro is not None and self._of.scheduled:
                scaler, first = self._of.observations.scaler, self._of.observations.losses == 1
                scaled = scaler is not None and scaler.is_enabled()
                self._of.micro.observed(self._of.model.stored, weight, first=first, scaled=scaled)
            forward = self._of.place.observed(self._of.observations.losses == 1, self._of.scheduled)
        if self._of.scheduled and self._of.export.pending:
            with self._of.spent.exporting():
                self._of.export.export(batch, self._of.observations.micro_batches[-1], self._of.step)
        self._of.observations.note(lambda: self._of.optimizers.rates())
        if self._of.scheduled:
            self._of.records.note_settings()
        if self._of.part.inside:  # in a closure the optimizer moves
            return
        if warning := self._of.idle.observed(self._of.step, forward):
            self._of.say(warning)

    def clip_noted(self, norm: torch.Tensor, max_norm: float) -> None:
        if self._of.watching:
            self._of.observations.clip(clip_to_norm(norm, max_norm, now=self._of.summed.wanted))

    def clipped(self, factor: float | None) -> None:
        if self._of.watching:
            self._of.observations.clip(clip_by(factor))

    # What the hooks do

    def before_forward(self, module: torch.nn.Module, *, told: bool = False) -> None:
        """`told`: somebody says so, and the module may not be what is called."""
        if self._of.evaluated:
            return
        self._ends.settle()
        self._of.refresh()
        if self._of.scheduled:
            self._of.vectors.await_devices(self._of.spent, forward=True)
        if self._of.noting:
            self._of.observations.forward_begins(module, full=self._of.scheduled, told=told)

    def after_forward(self, module: torch.nn.Module, output: Any) -> None:
        if self._of.evaluated:
            return
        if self._of.scheduled:
            self._of.observations.forward_ended(module, output)
        if self._of.noting:
            self._of.place.passed(content=self._of.scheduled)

    @property
    def latest_forward(self) -> Forward | None:
        """The last forward that ended since the last step, where that is recorded."""
        return self._of.observations.latest_forward

    def before_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """`closure`: the gradients are made inside the step; `closure_ran` is called when they are there."""
        if closure and self._of.evaluated:  # a step that failed, or its parent's comes: it is evaluated again
            self._of.observations.reset()
        self._of.evaluations, self._of.given = 0, None
        if self._of.part.repeats(optimizer):
            self._ends.end()
        if closure and self._of.optimizers.several:  # of one that makes no gradients, as Lightning's
            self._of.given = GradientWatch([tensor for group in optimizer.param_groups for tensor in group["params"]])
            self._of.given.note()
            closure = False
        self._of.part.enters(optimizer)
        if not self._of.part.others_made:
            self._begin_step(closure)
        if not self._of.noting or closure:
            return
        groups = self._of.optimizers.groups_of(self._of.optimizers.place(optimizer))
        self._of.place.taken()
        self._sum_gradients(optimizer, groups)
        self._square_gradients(optimizer, groups if self._of.optimizers.several else None)
        if self._of.scheduled and getattr(optimizer, "grad_scale", None) is None:
            self._of.vectors.take_gradients(groups)

    def _begin_step(self, closure: bool) -> None:
        """The parameters are x_t."""
        self._of.vectors.forget()
        self._of.writer.begin()
        self._of.refresh()
        here = self._of.unseen.arrives(self._of.step, content=self._of.scheduled)
        if moved := self._of.writer.moved_before(self._of.step):
            self._of.unseen.found(self._of.step, moved)
        if not self._of.noting:
            return
        self._of.beside(lambda every: every.begins(self._of.step, self._of.unseen.before(self._of.step)))
        self._of.place.arrives(here, closure)
        if self._of.scheduled:
            self._of.writer.check()
            self._of.records.note_settings()
            self._of.vectors.take_iterate()
            self._of.summed.turn(self._of.step)
        if closure:
            self._of.summed.hold()

    def closure_ran(self) -> None:
        """LBFGS, and line searches, evaluate it several times: the first time counts."""
        if self._of.given is not None:
            if not self._of.given.untouched():
                raise RecorderError(
                    f"step {self._of.step}: a closure of one of several optimizers made gradients: those of one "
                    "step are then taken at several points. Call backward() before their steps."
                )
            return
        self._of.evaluations += 1
        if self._of.evaluations > 1:
            return
        self._of.place.taken()
        self._sum_gradients(self._of.optimizers.members[0])
        self._square_gradients(self._of.optimizers.members[0], None)
        if self._of.scheduled:
            self._of.vectors.take_gradients()

    def _sum_gradients(self, optimizer: torch.optim.Optimizer, groups: Container[int] = ()) -> None:
        """Of several optimizers the first one's coming tells g_t of all, and the others' `groups` must not change."""
        if not self._of.summed.wanted:
            return
        if self._of.part.others_made:
            self._of.summed.check_rest(groups)
            return
        moved = self._of.place.moved or (self._of.scheduled and self._of.place.reason())
        self._of.summed.add(optimizer, None if moved else self._of.observations.factors())

    def _square_gradients(self, optimizer: torch.optim.Optimizer, groups: Container[int] | None) -> None:
        place, scale = self._of.optimizers.place(optimizer), getattr(optimizer, "grad_scale", None)
        self._of.beside(lambda every: every.gradients(place, groups, scale))

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._of.part.inside:  # a subclass whose step() calls its parent's: that one was recorded
            return
        if self._of.vectors.iterate is not None:
            groups = self._of.optimizers.groups_of(self._of.optimizers.place(optimizer))
            if not self._of.vectors.has_gradients(groups):  # fused: the step divides the scale out; no closure ran
                self._of.vectors.take_gradients(groups)
        first = not self._of.part.others_made
        self._of.part.leaves(optimizer)
        if first:
            self._of.observations.drop_if_cleared()
        recorded = self._of.scheduled
        if self._of.part.whole:
            self._ends.end()
        self._of.unseen.left(content=recorded or self._of.scheduled)

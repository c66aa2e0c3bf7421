"""What becomes of each step: what is taken before, inside and after `optimizer.step()`, and what of it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch

from trajcheck.errors import RecorderError
from trajcheck.readable import some_of
from trajcheck.recording.every_step.beside import BesideRecords
from trajcheck.recording.every_step.every_step import EveryStep
from trajcheck.recording.export import ObjectiveExport
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.run.group_settings import GroupSettings
from trajcheck.recording.run.run_writer import RunWriter
from trajcheck.recording.run.trained_set import TrainedSet
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.recording.step.findings import found_on_the_way
from trajcheck.recording.step.forwards import Forward
from trajcheck.recording.step.gradient_place import GradientPlace
from trajcheck.recording.step.gradient_watch import GradientWatch
from trajcheck.recording.step.idle_optimizer import IdleOptimizer
from trajcheck.recording.step.learning_time import Sums
from trajcheck.recording.step.observations import Observations, clip_by, clip_to_norm
from trajcheck.recording.step.step_of_all import StepOfAll
from trajcheck.recording.step.step_records import StepRecords
from trajcheck.recording.step.summed_steps import SummedSteps
from trajcheck.recording.step.unseen_updates import UnseenUpdates
from trajcheck.recording.step.vectors import StepVectors, Tensors
from trajcheck.recording.step.window_sums import WindowSums
from trajcheck.runs.run_info import CLOSED


class StepRecorder:
    """Follows a training loop step by step. `step` is the number t of the next update; `records` puts together what is
    recorded of it.

    The methods raise what goes wrong in them; whoever calls does so inside a Guard, which keeps it from the training
    loop.
    """

    def __init__(
        self,
        optimizers: Optimizers,
        model: RecordedModel,
        observations: Observations,
        writer: RunWriter,
        export: ObjectiveExport,
        windows: WindowSums | None,
        spent: TimeSpent,
        grad_dtype: torch.dtype | None,
        settings: GroupSettings,
        trained: TrainedSet,
        say: Callable[[str], None],
        every_step: bool,
        lost: Callable[[Exception], None],
    ) -> None:
        """`lost` is told why nothing more is taken of every step."""
        self.step = writer.start
        self._optimizers, self._observations = optimizers, observations
        self._part = StepOfAll(optimizers)
        self._vectors = StepVectors(model, grad_dtype, writer.buffers)
        self._writer, self._export, self._spent = writer, export, spent
        self._summed = SummedSteps(windows, self._vectors, spent)
        self.records = StepRecords(writer, self._vectors, observations, self._summed, settings, trained)
        four = (
            EveryStep(model.stored, writer.every_step_file, alone=model.ranks.count == 1, whole=not model.sharded)
            if every_step and model.ranks.first
            else None
        )
        self._beside = BesideRecords(four, spent, lost)
        self._unseen = UnseenUpdates(model.stored)
        self._place = GradientPlace(self._unseen.places, self._unseen.prints)
        self._idle = IdleOptimizer(optimizers, model.stored, self._unseen.places)
        self._say = say
        self._scheduled = writer.wants(self.step)
        self._stopped = False
        self._model, self._fresh = model, False
        self._evaluations = 0
        self._given: GradientWatch | None = None  # of one of several optimizers with a closure

    @property
    def watching(self) -> bool:
        """Whether anything of the coming step is wanted: its record, or its part of the sums."""
        return (self._scheduled or self._summed.wanted) and not self._evaluated

    @property
    def noting(self) -> bool:
        """Whether its loss and its gradients are: for that, or for the numbers of every step."""
        return (self._scheduled or self._summed.wanted or self._beside.wanted) and not self._evaluated

    @property
    def _evaluated(self) -> bool:
        """Whether the step that is being made has evaluated its closure: f and g_t are those of the first time."""
        return self._part.inside and self._evaluations > 0

    def observe(
        self, batch: Any, loss: Any, weight: float | None, forwards: Sequence[Forward] = (), lacks: str = ""
    ) -> None:
        """`weight` None: unknown. `forwards`: those that made the loss, where it is known; none: its graph tells.
        `lacks`: what the batch is without."""
        if self._evaluated:
            return
        self._settle()
        if self._scheduled:
            self._vectors.await_devices(self._spent)
        if self.noting:
            self._observations.add(batch, loss, weight, full=self._scheduled, forwards=forwards, lacks=lacks)
            self._place.observed(first=self._observations.losses == 1, content=self._scheduled)
        if self._scheduled and self._export.pending:
            with self._spent.exporting():
                self._export.export(batch, self._observations.micro_batches[-1], self.step)
        self._observations.note(lambda: self._optimizers.rates())
        if self._scheduled:
            self.records.note_settings()
        if not self._part.inside and (warning := self._idle.observed(self.step)):  # in a closure the optimizer moves
            self._say(warning)

    def clip_noted(self, norm: torch.Tensor, max_norm: float) -> None:
        if self.watching:
            self._observations.clip(clip_to_norm(norm, max_norm, now=self._summed.wanted))

    def clipped(self, factor: float | None) -> None:
        if self.watching:
            self._observations.clip(clip_by(factor))

    # What the hooks do

    def before_forward(self, module: torch.nn.Module, *, told: bool = False) -> None:
        """`told`: somebody says so, and the module may not be what is called."""
        if self._evaluated:
            return
        self._settle()
        self._refresh()
        if self._scheduled:
            self._vectors.await_devices(self._spent, forward=True)
        if self.noting:
            self._observations.forward_begins(module, full=self._scheduled, told=told)

    def after_forward(self, module: torch.nn.Module, output: Any) -> None:
        if self._evaluated:
            return
        if self._scheduled:
            self._observations.forward_ended(module, output)
        if self.noting:
            self._place.passed(content=self._scheduled)

    @property
    def latest_forward(self) -> Forward | None:
        """The last forward that ended since the last step, where that is recorded."""
        return self._observations.latest_forward

    def before_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """`closure`: the gradients are made inside the step; `closure_ran` is called when they are there."""
        if closure and self._evaluated:  # of a step that failed, or before its parent's step: it is evaluated again
            self._observations.reset()
        self._evaluations, self._given = 0, None
        if self._part.repeats(optimizer):
            self._end_step()
        if closure and self._optimizers.several:  # of one that makes no gradients, as Lightning's, nothing is expected
            self._given = GradientWatch([tensor for group in optimizer.param_groups for tensor in group["params"]])
            self._given.note()
            closure = False
        self._part.enters(optimizer)
        if not self._part.others_made:
            self._begin_step(closure)
        if not self.noting or closure:
            return
        groups = self._optimizers.groups_of(self._optimizers.place(optimizer))
        self._place.taken()
        self._sum_gradients(optimizer, groups)
        self._square_gradients(optimizer, groups if self._optimizers.several else None)
        if self._scheduled and getattr(optimizer, "grad_scale", None) is None:
            self._vectors.take_gradients(groups)

    def _refresh(self) -> None:
        """Once in a step, at its first moment: follow the parameters that are trained in it."""
        if self._fresh:
            return
        self._fresh = True
        if self._model.unchanged(self._optimizers):
            return
        if strangers := self._model.strangers(self._optimizers):
            self._say(
                f"{self._optimizers.name} trains {some_of(strangers)} from step {self.step} on, which the model had "
                "not when recording began: they are not recorded, and x_t is without them"
            )
        if not self._model.refresh(self._optimizers):
            return
        self._unseen.arrives(self.step, content=False)
        self._unseen.follow(self._model.stored)
        self._place = GradientPlace(self._unseen.places, self._unseen.prints)
        self._idle = IdleOptimizer(self._optimizers, self._model.stored, self._unseen.places)
        self._observations.follow()
        self._writer.widen(len(self._optimizers.param_groups))
        self._summed.follow(self._model.stored, self.step, recorded=self._scheduled)
        self._beside(lambda every: every.follow(self._model.stored))

    def _begin_step(self, closure: bool) -> None:
        """The parameters are x_t."""
        self._vectors.forget()
        self._writer.begin()
        self._refresh()
        here = self._unseen.arrives(self.step, content=self._scheduled)
        if moved := self._writer.moved_before(self.step):
            self._unseen.found(self.step, moved)
        if not self.noting:
            return
        self._beside(lambda every: every.begins(self.step, self._unseen.before(self.step)))
        self._place.arrives(here, closure)
        if self._scheduled:
            self._writer.check()
            self.records.note_settings()
            self._vectors.take_iterate()
            self._summed.turn(self.step)
        if closure:
            self._summed.hold()

    def closure_ran(self) -> None:
        """LBFGS, and line searches, evaluate it several times: the first time counts."""
        if self._given is not None:
            if not self._given.untouched():
                raise RecorderError(
                    f"step {self.step}: a closure of one of several optimizers made gradients: those of one step are "
                    "then taken at several points. Call backward() before their steps."
                )
            return
        self._evaluations += 1
        if self._evaluations > 1:
            return
        self._place.taken()
        self._sum_gradients(self._optimizers.members[0])
        self._square_gradients(self._optimizers.members[0], None)
        if self._scheduled:
            self._vectors.take_gradients()

    def _sum_gradients(self, optimizer: torch.optim.Optimizer, groups: Container[int] = ()) -> None:
        """Of several optimizers the first one's coming tells g_t of all, and the others' `groups` must not change."""
        if not self._summed.wanted:
            return
        if self._part.others_made:
            self._summed.check_rest(groups)
            return
        moved = self._place.moved or (self._scheduled and self._place.reason())
        self._summed.add(optimizer, None if moved else self._observations.factors())

    def _square_gradients(self, optimizer: torch.optim.Optimizer, groups: Container[int] | None) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        self._beside(lambda every: every.gradients(groups, scale))

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._part.inside:  # a subclass whose step() calls its parent's: that one was recorded
            return
        if self._vectors.iterate is not None:
            groups = self._optimizers.groups_of(self._optimizers.place(optimizer))
            if not self._vectors.has_gradients(groups):  # fused, and the step divides the scale out; or no closure ran
                self._vectors.take_gradients(groups)
        first = not self._part.others_made
        self._part.leaves(optimizer)
        if first:
            self._observations.drop_if_cleared()
        recorded = self._scheduled
        if self._part.whole:
            self._end_step()
        self._unseen.left(content=recorded or self._scheduled)

    # What becomes of a step

    def _end_step(self) -> None:
        """All optimizers have made their part, or no more of them will."""
        part, missing = self._part, self._part.missing()
        rates, found_inf = part.rates, part.found_inf
        iterate, gradients = self._vectors.iterate, self._vectors.gradients
        step, sums = self._count(rates, found_inf)
        if self._summed.wanted:
            self._summed.count(self._observations.loss(), found_inf)
        if self._beside.wanted:
            known = not (missing or self._place.moved or (iterate is not None and self._place.reason()))
            loss = self._observations.loss()
            self._beside(lambda every: every.made(step, loss, rates, found_inf, known=known))
        if iterate is not None:
            skipped = found_inf is not None and bool(found_inf)
            self._record(step, sums, {**iterate, **(gradients or {})}, rates, skipped, missing)
        self._next()

    def _settle(self) -> None:
        """End a step that some of the optimizers made alone. If the loss scaler skipped the update of the observed
        step, record it as skipped and count it."""
        if self._part.others_made and not self._part.inside:
            self._end_step()
        if not self._observations.skipped():
            return
        self._writer.begin()
        self._unseen.arrives(self.step, content=False)
        recorded, rates, loss = self._scheduled, self._observations.rates, self._observations.loss()
        self._beside(lambda every: every.begins(self.step, self._unseen.before(self.step)))
        if recorded:
            self._summed.turn(self.step)
        step, sums = self._count(None, None, made=False)
        self._summed.skip()
        self._beside(lambda every: every.skipped(step, loss))
        if recorded:
            self._record(step, sums, self._vectors.take_iterate(), rates, skipped=True)
        self._next()
        self._unseen.left(content=recorded or self._scheduled)

    def _count(self, rates: list[float] | None, found_inf: Any, *, made: bool = True) -> tuple[int, Sums]:
        """Count the step; its number, and the sums of rates before it.

        This comes before any waiting: a KeyboardInterrupt later must not leave x_{t+1} under the number t.
        """
        self._writer.begin()
        step, sums = self.step, self._writer.sums() if self._scheduled else (None, None)
        self.step += 1
        self._part.reset()
        self._vectors.forget()
        if made:
            self._writer.count(rates, found_inf)
        return step, sums

    def _record(
        self, step: int, sums: Sums, vectors: Tensors, rates: list[float] | None, skipped: bool, missing: str = ""
    ) -> None:
        unseen, apart = self._unseen.take(), self._place.reason()
        self.records.record(step, sums, vectors, rates, unseen, skipped=skipped, missing=missing, apart=apart)

    def _next(self) -> None:
        """Prepare for the next step."""
        self._writer.thin()
        self._observations.reset()
        self.records.forget_settings()
        self._fresh = False
        self._spent.end_step(recorded=self._scheduled)
        self._place.reset()
        self._scheduled = self._writer.wants(self.step)

    # Ends

    def state_dict(self) -> dict[str, Any]:
        self._settle()
        self._writer.begin()
        self._beside(lambda every: every.flush())
        self._writer.flush()  # a checkpoint ahead of the records would leave a gap in the run that goes on from it
        tau, squares = self._writer.sums()
        return {"step": self.step, "tau": tau, "tau_squares": squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.step != self._writer.start or state["step"] != self.step:
            raise RecorderError(
                f"load_state_dict(): this state is of step {state['step']}, and the recorder is at step {self.step}. "
                f"Make it with start_step={state['step']}, and load its state before the first step."
            )
        self._writer.go_on_from((state["tau"], state["tau_squares"]))

    def finish(self) -> str:
        """Record the final iterate, with what its evaluation needs, and wait until all is written; how the recording
        ended, in words.

        The iterate is left out where something else has changed the parameters since the last step, unless it did so
        before that step too, as an outer loop does that edits every iterate: it is not x_t of the number that it had.
        """
        self._settle()
        if self._writer.resumed and self.step == self._writer.start:
            return CLOSED
        self._writer.begin()
        ended = CLOSED
        held = self._vectors.iterate if self._part.inside else None  # a step that failed half-way may have changed x_t
        if held is None:
            self._unseen.arrives(self.step, content=False)
            unseen = self._unseen.take()
            if self._unseen.moved_before(self.step):
                names = some_of(list(self._unseen.all.names))
                ended = f"{CLOSED}; the final iterate is left out: after the last step {self._others} changed {names}"
            else:
                self._write_final(self._vectors.take_iterate(), unseen)
        else:
            self._write_final(held, self._unseen.take())
        self._beside(lambda every: every.ends(self.step, self._unseen.all.last == self.step))
        self._writer.close()
        self._writer.check()
        return ended

    @property
    def _others(self) -> str:
        return f"something else than {self._optimizers.name}"

    def _write_final(self, iterate: Tensors, unseen: dict[str, Any]) -> None:
        if not self._part.inside:
            self._summed.end(self.step)
        self.records.record_final(self.step, iterate, unseen)

    def said(self) -> list[str]:
        """What was found on the way, at the end."""
        return found_on_the_way(self._optimizers.name, self._unseen.to_say, self.records.elsewhere, self._part.lacking)

    def stop(self, ended: str) -> None:
        """Write what was handed over, say in the run how recording ended, and let go of everything."""
        if not self._stopped:
            self._stopped = True
            self._beside.end()
            self._writer.end(self.step, ended)
        self._observations.reset()
        self._vectors.release()
        self._summed.release()

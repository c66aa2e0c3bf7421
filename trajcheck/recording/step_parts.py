"""What follows a training step: the parts that see it, and where in it the loop is."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
from trajcheck.recording.step.gradient_place import GradientPlace
from trajcheck.recording.step.gradient_watch import GradientWatch
from trajcheck.recording.step.idle_optimizer import IdleOptimizer
from trajcheck.recording.step.observations import Observations
from trajcheck.recording.step.step_of_all import StepOfAll
from trajcheck.recording.step.step_records import StepRecords
from trajcheck.recording.step.summed_steps import SummedSteps
from trajcheck.recording.step.unseen_updates import UnseenUpdates
from trajcheck.recording.step.vectors import StepVectors
from trajcheck.recording.step.window_sums import WindowSums
from trajcheck.recording.sums.micro_gradients import MicroGradients


class StepParts:
    """`step` is the number t of the next update, `scheduled` whether it is recorded, `fresh` whether its parameters
    were followed, `evaluations` how often its closure ran."""

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
        micro_gradients: bool = False,
    ) -> None:
        """`lost` is told why nothing more is taken of every step."""
        self.step = writer.start
        self.optimizers, self.observations = optimizers, observations
        self.part = StepOfAll(optimizers)
        self.vectors = StepVectors(model, grad_dtype, writer.buffers)
        self.writer, self.export, self.spent = writer, export, spent
        self.summed = SummedSteps(windows, self.vectors, spent)
        self.micro = MicroGradients(model.ranks.count) if micro_gradients else None
        self.records = StepRecords(writer, self.vectors, observations, self.summed, settings, trained, self.micro)
        four = (
            EveryStep(model.stored, writer.every_step_file, alone=model.ranks.count == 1, whole=not model.sharded)
            if every_step and model.ranks.first
            else None
        )
        self.beside = BesideRecords(four, spent, lost)
        self.unseen = UnseenUpdates(model.stored)
        self.place = GradientPlace(self.unseen.places, self.unseen.prints)
        self.idle = IdleOptimizer(optimizers, model.stored, self.unseen.places)
        self.say = say
        self.scheduled = writer.wants(self.step)
        self.model, self.fresh = model, False
        self.evaluations = 0
        self.given: GradientWatch | None = None  # of one of several optimizers with a closure

    @property
    def watching(self) -> bool:
        """Whether anything of the coming step is wanted: its record, or its part of the sums."""
        return (self.scheduled or self.summed.wanted) and not self.evaluated

    @property
    def noting(self) -> bool:
        """Whether its loss and its gradients are: for that, or for the numbers of every step."""
        return (self.scheduled or self.summed.wanted or self.beside.wanted) and not self.evaluated

    @property
    def evaluated(self) -> bool:
        """Whether the step that is being made has evaluated its closure: f and g_t are those of the first time."""
        return self.part.inside and self.evaluations > 0

    def refresh(self) -> None:
        """Once in a step, at its first moment: follow the parameters that are trained in it."""
        if self.fresh:
            return
        self.fresh = True
        if self.model.unchanged(self.optimizers):
            return
        if strangers := self.model.strangers(self.optimizers):
            self.say(
                f"{self.optimizers.name} trains {some_of(strangers)} from step {self.step} on, which the model had "
                "not when recording began: they are not recorded, and x_t is without them"
            )
        if not self.model.refresh(self.optimizers):
            return
        self.unseen.arrives(self.step, content=False)
        self.unseen.follow(self.model.stored)
        self.place = GradientPlace(self.unseen.places, self.unseen.prints)
        self.idle = IdleOptimizer(self.optimizers, self.model.stored, self.unseen.places)
        self.observations.follow()
        self.writer.widen(len(self.optimizers.param_groups))
        self.summed.follow(self.model.stored, self.step, recorded=self.scheduled)
        self.beside(lambda every: every.follow(self.model.stored))

"""The run that is being recorded: which steps it takes, what they have in common, and their way to the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from trajcheck.errors import HeldRunError, RecorderError
from trajcheck.readable import size_text, some_of
from trajcheck.recording.every_step.log_file import EveryStepFile, cut
from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.model.surroundings import Captured, Surroundings, referred
from trajcheck.recording.run.background_writer import BackgroundWriter, StepToWrite
from trajcheck.recording.run.folder import Continuation, RunFolder
from trajcheck.recording.schedule.overhead_budget import OverheadBudget
from trajcheck.recording.schedule.plan import RecordingPlan, SchedulePlan, Situation, ThinningPlan, make_plan
from trajcheck.recording.schedule.schedules import Budget, Schedule
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.recording.step.host_buffers import HostBuffer, HostBuffers
from trajcheck.recording.step.learning_time import LearningTime, Sums


class RunWriter:
    """Takes tensors and metadata of steps, adds tau and the frozen parameters, and hands them to the writer.

    `say` gets the plan in one line when the first record shows how large one is, `warn` what else a resumed run
    finds changed. Raises RecorderError at once where
    the disk is too small for what is asked.
    """

    def __init__(
        self,
        folder: RunFolder,
        model: RecordedModel,
        surroundings: Surroundings,
        schedule: Schedule | Budget,
        *,
        start: int,
        total_steps: int | None,
        groups: int,
        grad_dtype: torch.dtype | None,
        windows: bool,
        overhead: float | None,
        spent: TimeSpent,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._folder, self._model, self._schedule = folder, model, schedule
        self.surroundings = surroundings
        self.start, self._total, self._groups, self._say = start, total_steps, groups, say
        self.buffers, self._spent = HostBuffers(), spent
        self._overhead = None if overhead is None else OverheadBudget(overhead, spent, folder.id, say)
        self._time = LearningTime([0.0] * groups, [0.0] * groups)
        self._state: Sums | None = None
        self._continuation: Continuation | None = None
        self._plan: RecordingPlan | None = None
        self._writer: BackgroundWriter | None = None
        self._completes = folder.resumed and folder.has(start)
        self._window_bytes = model.window_bytes() if windows else 0
        self._begins_window = windows and folder.resumed
        self._record_bytes = model.record_bytes(grad_dtype) + self._window_bytes
        if folder.ranks.first:
            folder.agreed["free_bytes"] = shutil.disk_usage(folder.path).free
            try:
                self._check_disk(self._record_bytes)
            except BaseException:
                self.abandon()
                raise

    @property
    def resumed(self) -> bool:
        """Whether the folder held the run before."""
        return self._folder.resumed

    def wants(self, step: int) -> bool:
        """Whether a step is to be recorded; asked for each in order."""
        if self._overhead is None:
            return self._scheduled(step)
        if isinstance(self._plan, ThinningPlan) and step % 2 == 0:
            self._plan.coarsen(self._overhead.spacing)
        return self._scheduled(step) and self._overhead.allows(step, self._followed(step))

    def _followed(self, step: int) -> bool:
        """Whether the schedule pairs this step with the next."""
        if isinstance(self._schedule, Budget):
            return step % 2 == 0
        return bool(self._schedule.wants(step + 1))

    def _scheduled(self, step: int) -> bool:
        if self._plan is not None:
            return self._plan.wants(step)
        # The default plan begins with a record, and a step that is there already is completed. The windows of a resumed
        # run begin where it does, so that point is recorded.
        begins = self._completes or self._begins_window
        if isinstance(self._schedule, Budget) or (begins and step == self.start):
            return True
        return bool(self._schedule.wants(step))

    def begin(self) -> None:
        """Before the first record: make way in the folder of a resumed run, and take over what it holds."""
        if self._continuation is not None:
            return
        there = self._folder.go_on(self.start, self._model, self.surroundings) if self.resumed else Continuation()
        if self.resumed and self._folder.ranks.first:
            cut(self._folder.path, self.start)
        if self.start > 0:
            sums = (there.tau, there.tau_squares) if self._state is None else self._state
            fit = all(values is None or len(values) == self._groups for values in sums)
            self._time.restart(*(sums if fit else (None, None)))
        self._writer = BackgroundWriter(
            self._folder.path,
            there.stored_batch,
            self.buffers,
            self._spent,
            self._written,
            self._folder.ranks,
            there.foreign,
            self._folder.check,
        )
        self._continuation = there
        for names, kind in ((there.moved, "parameters"), (there.refrozen, "frozen parameters")):
            if names:
                self._warn(
                    f"something changed {kind} between the job before and this one, which begins at step {self.start}: "
                    f"{some_of(names)}"
                )

    def every_step_file(self) -> EveryStepFile:
        """Opened after `begin()`."""
        return EveryStepFile(self._folder.path, self.start, self._folder.check)

    def moved_before(self, step: int) -> tuple[str, ...]:
        """The parameters that something changed between the job before and this one, whose first step it is."""
        there = self._continuation
        return there.moved if there is not None and step == self.start else ()

    def go_on_from(self, sums: Sums) -> None:
        """Before the first record: the sums of rates up to it. Raises RecorderError for other parameter groups."""
        if any(values is not None and len(values) != self._groups for values in sums):
            raise RecorderError(f"load_state_dict(): tau is {sums[0]}, and there are {self._groups} parameter groups.")
        self._state = sums
        if self._continuation is not None:
            self._time.restart(*sums)

    def widen(self, groups: int) -> None:
        """There are so many parameter groups from now on."""
        self._groups = groups
        self._time.widen(groups)

    def sums(self) -> Sums:
        """tau and the sum of squared rates up to here."""
        return self._time.values()

    def count(self, rates: list[float] | None, found_inf: Any) -> None:
        """Count an update into the sums."""
        self._time.add(rates, found_inf)

    def write(
        self,
        step: int,
        sums: Sums,
        tensors: dict[str, torch.Tensor],
        metadata: Mapping[str, Any],
        captured: Captured | None,
        buffer: HostBuffer,
    ) -> None:
        """Hand one step to the writer, with the buffer that its tensors lie in; waits while two others are waiting.
        `captured` are its frozen parameters and buffers; None: no forward was seen, and what is frozen is as it is."""
        assert self._writer is not None
        self.check()
        named = zip(("tau", "tau_squares"), sums, strict=True)
        metadata = {**metadata, **{key: values for key, values in named if values is not None}}
        around, said = self.surroundings.record(step, captured or self.surroundings.capture(buffers=False))
        tensors, metadata = {**tensors, **around}, {**metadata, **said}
        if step == self.start and self._continuation is not None:
            tensors, metadata = self._continuation.with_window(tensors, metadata)
        if self._overhead is not None and (left_out := self._overhead.recorded(step)):
            metadata["left_out"] = left_out
        metadata |= self._model.boxes(tensors)
        if self._plan is None:
            metadata |= self._model.replicated_norms()
        record = StepToWrite(step, tensors, metadata, buffer)
        plan = self._planned(record)
        plan.captured(step, self._bytes(record.bytes))
        plan.needs(step, referred(metadata))
        self._writer.put(record)

    def thin(self) -> None:
        """After a step: delete what the plan gives up to make room."""
        if self._plan is not None and self._writer is not None and (steps := self._plan.deletable()):
            self._writer.delete(steps)
            self.surroundings.forget(steps)

    def flush(self) -> None:
        """Wait until the records so far are on the disk. Raises as `check`."""
        if self._writer is not None:
            self._writer.flush()
        self.check()

    def check(self) -> None:
        """Raise what the writer has met."""
        if self._writer is not None and self._writer.error is not None:
            raise self._writer.error

    def close(self) -> None:
        """Wait for the writer to finish."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """The recording does not begin after all."""
        self.close()
        self._folder.abandon()

    def end(self, step: int, reason: str) -> None:
        """Close, and say in run.json how the recording ended, where that can be written; not of a run that was to be
        gone on with, and was not."""
        self.close()
        if not self.resumed or self._continuation is not None:
            with suppress(OSError, ValueError, HeldRunError):
                self._folder.end(step, reason)
        self.release()

    def release(self) -> None:
        """Let other recorders have the run."""
        self._folder.release()

    def _bytes(self, size: int) -> int:
        """How large a plan takes a record to be: the files of several ranks differ, and all must come to one plan."""
        return size if self._folder.ranks.count == 1 else self._record_bytes

    def _planned(self, first: StepToWrite) -> RecordingPlan:
        if self._plan is None:
            window_bytes = 0 if "window" in first.metadata else self._window_bytes  # the first record of all has none
            plan = make_plan(self._schedule, self._situation(self._bytes(first.bytes + window_bytes)))
            if isinstance(plan, ThinningPlan) and self._continuation is not None:
                plan.protect({first.step, *self._continuation.referred})
                for step, others in self._continuation.needs.items():
                    plan.needs(step, others)
            self._say(f"recording {self._folder.path}: {plan.describe()}")
            total = self._schedule.total_steps if isinstance(self._schedule, Budget) else None
            if self._overhead is not None and plan.records and (steps := total or self._total):
                self._overhead.planned(plan.records, steps - self.start)
            self._plan = plan
        return self._plan

    def _situation(self, record_bytes: int) -> Situation:
        several = self._folder.ranks.count > 1
        return Situation(
            record_bytes=record_bytes,
            free_bytes=self._folder.agreed["free_bytes"] if several else shutil.disk_usage(self._folder.path).free,
            existing=self._folder.sizes() if self.resumed and self._folder.planned else {},
            start=self.start,
            total_steps=self._total,
            seed=self._folder.id,
        )

    def _written(self, step: int, size: int) -> None:
        if self._plan is not None:
            self._plan.written(step, self._bytes(size))

    def _check_disk(self, record_bytes: int) -> None:
        """As far as it is known before the first batch."""
        situation = self._situation(record_bytes)
        needed = 2 * record_bytes
        if not isinstance(self._schedule, Budget):
            needed = max(SchedulePlan(self._schedule, situation).bytes or 0, needed)
        if needed > situation.free_bytes:
            raise RecorderError(
                f"{self._folder.path}: recording needs at least {size_text(needed)}, and "
                f"{size_text(situation.free_bytes)} are free on that disk. Record fewer steps (every=, "
                "schedule=Budget(bytes=...)), fewer parameters (parameters=), or elsewhere."
            )

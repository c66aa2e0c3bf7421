"""What the record of a step holds and says, put together from what was taken of it."""

from __future__ import annotations

import math
from typing import Any

import torch

from trajcheck.recording.model.surroundings import Captured
from trajcheck.recording.run.group_settings import GroupSettings
from trajcheck.recording.run.run_writer import RunWriter
from trajcheck.recording.run.trained_set import TrainedSet
from trajcheck.recording.step.learning_time import Sums
from trajcheck.recording.step.observations import Observations
from trajcheck.recording.step.summed_steps import SummedSteps
from trajcheck.recording.step.vectors import StepVectors, Tensors
from trajcheck.recording.sums.micro_gradients import MicroGradients


class StepRecords:
    """Hands records to the writer. `epoch` is stored where set; `elsewhere` are the recorded steps whose gradient was
    taken at other parameters than x_t."""

    def __init__(
        self,
        writer: RunWriter,
        vectors: StepVectors,
        observations: Observations,
        summed: SummedSteps,
        settings: GroupSettings,
        trained: TrainedSet,
        micro: MicroGradients | None,
    ) -> None:
        self._writer, self._vectors, self._observations, self._summed = writer, vectors, observations, summed
        self._settings, self._trained, self._micro = settings, trained, micro
        self.epoch: int | None = None
        self.elsewhere: list[int] = []
        self._groups: list[dict[str, Any]] | None = None  # settings that are others than run.json's
        self._modes: dict[str, str] | None = None  # at the forward of the last record

    def note_settings(self) -> None:
        """Those of the step that is being made are as they are now."""
        self._groups = self._settings.differing()

    def forget_settings(self) -> None:
        self._groups = None

    def record(
        self,
        step: int,
        sums: Sums,
        vectors: Tensors,
        rates: list[float] | None,
        unseen: dict[str, Any],
        *,
        skipped: bool,
        missing: str,
        apart: str,
    ) -> None:
        """`missing`: which of several optimizers made no update, whose gradient is then none that anything used;
        `apart`: why neither gradient nor loss is known to be that of x_t."""
        tensors, metadata = self._observations.take()
        captured = self._observations.surroundings
        self._modes = metadata.get("modes", self._modes)
        window, of_window = self._summed.take()
        metadata.update(of_window)
        if rates is not None and all(map(math.isfinite, rates)):
            metadata["lr"] = rates
        if skipped:
            metadata["skipped"] = True
        metadata |= unseen
        if self._micro is not None:
            numbers, why = self._micro.take(metadata.get("micro_batches", 1))
            if why or (numbers and apart):
                metadata["omitted"] = {**metadata.get("omitted", {}), "micro_gradients": why or apart}
            elif numbers:
                metadata["micro_gradients"] = numbers
        if reason := missing or apart:
            vectors = {name: tensor for name, tensor in vectors.items() if not name.startswith("grad/")}
            metadata["omitted"] = {**metadata.get("omitted", {}), "gradient": reason}
        if apart:
            metadata.pop("loss", None)
            metadata["omitted"]["loss"] = apart
            self.elsewhere.append(step)
        self._write(step, sums, {**vectors, **tensors, **window}, metadata, captured)

    def record_final(self, step: int, iterate: Tensors, unseen: dict[str, Any]) -> None:
        """The iterate after the last update, with what its evaluation needs."""
        window, metadata = self._summed.take()
        self.note_settings()
        if self._modes is not None:
            metadata["modes"] = self._modes  # no forward begins here: those of the last record
        captured = self._writer.surroundings.capture(wholly=True)
        self._write(step, self._writer.sums(), {**iterate, **window}, {**metadata, **unseen}, captured)

    def _write(
        self,
        step: int,
        sums: Sums,
        tensors: dict[str, torch.Tensor],
        metadata: dict[str, Any],
        captured: Captured | None,
    ) -> None:
        if self.epoch is not None:
            metadata["epoch"] = self.epoch
        if self._groups is not None:
            metadata["groups"] = self._groups
        if trained := self._trained.differing():
            metadata["trained"] = trained
        self._writer.begin()
        self._writer.write(step, sums, tensors, metadata, captured, self._vectors.hand_over())

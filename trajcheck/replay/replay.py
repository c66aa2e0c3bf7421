"""Losses and gradients along the run, re-evaluated on the recorded samples.

For each step, on each sample that was asked for (its own z_t, that of the step before, probe batches, a data set), in
three stages: what the row needs is read (row_reading.py), f and grad f are evaluated and meet the recorded vectors on
the device (row_evaluation.py), and a row's numbers leave it in one copy, as scalars (row_numbers.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

import torch

from trajcheck.errors import TrajcheckError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.around import constant_names
from trajcheck.replay.batches.sizes import Sizes
from trajcheck.replay.data_set.sample import data_set
from trajcheck.replay.fitting import fit_objective, prepared, recorded_dtype
from trajcheck.replay.gpu_reducer import DeviceReducer
from trajcheck.replay.host_reducer import HostReducer
from trajcheck.replay.plan import Plan, replay_reads
from trajcheck.replay.reducer import Reducer
from trajcheck.replay.residency import replay_residency
from trajcheck.replay.row_evaluation import RowEvaluation
from trajcheck.replay.row_numbers import RowNumbers
from trajcheck.replay.row_reading import RowData, RowReading
from trajcheck.replay.row_samples import RowSamples
from trajcheck.replay.sample_conventions import probe_samples
from trajcheck.replay.setting import Setting
from trajcheck.replay.vector_reader import Buffers, VectorReader
from trajcheck.runs.divergence import raise_not_finite
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Rows
from trajcheck.scalars.values import RowScalars

#: Seconds of rows that are evaluated before they are handed on: what evaluations need around them is set once for all
#: of these, and takes as long as an evaluation of a small model.
AT_ONCE = 0.2


class Replay:
    """The replay of one run; `randomness` says of each place where the draws of the step's own sample came from.

    Errors: ObjectiveError for an objective of another model; UsageError where the plan's memory is too little.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        rows: Rows,
        references: Sequence[Reference],
        objective: Objective,
        dtype: str,
        plan: Plan,
    ) -> None:
        fit_objective(objective, trajectory)
        self.objective, recorded = prepared(objective, trajectory, dtype), recorded_dtype(trajectory)
        reads = replay_reads(trajectory, rows, plan, len(references))
        cuda, copies = objective.device.type == "cuda", objective.copies_points
        residency = replay_residency(trajectory, reads, references, plan, dtype, cuda=cuda, copies=copies)
        constant = constant_names(trajectory) if any(each.record is None for each in references) else frozenset[str]()
        self._setting = Setting(trajectory, references, self.objective, plan, reads, residency, recorded, constant)
        self.randomness: dict[int, str] = {}
        self.weighing = ""  # how the batches of a data set weigh
        self.evaluations = 0
        self._fixed: dict[str, list[Sample]] = {}
        self._sizes = Sizes()
        with VectorReader(Buffers(torch.device("cpu"))) as reader:
            if "probe" in plan.samples:
                self._fixed["probe"] = probe_samples(trajectory, objective, recorded, reader.tensor)
            if plan.batch_sums:
                self._sizes = Sizes.of(self._setting, self._fixed.get("probe", ()), reader.tensor)
        if "full" in plan.samples:
            whole = data_set(objective, recorded)
            self._fixed["full"], self.weighing = [whole], whole.randomness

    def rows(
        self, progress: Callable[[float], object] = lambda steps: None
    ) -> Generator[dict[str, list[RowScalars]], None, None]:
        """What the replay adds to each row of work, in order: by convention, a list over its samples.

        A convention that has no sample on a row is missing there. Raises ObjectiveError, naming step and point, when
        the objective fails.
        """
        setting = self._setting
        samples = RowSamples(setting, self._fixed, self._sizes)
        with RowReading(setting) as reading, self._reducer() as reducer:
            evaluation = RowEvaluation(setting, samples, reading, reducer)
            numbers = RowNumbers(
                reducer,
                setting.plan.by_tensor,
                lambda row: raise_not_finite(reading.extents, setting.trajectory, row.near),
            )

            def of_row(data: RowData) -> dict[str, list[RowScalars]]:
                evaluated = evaluation.of_row(data)
                self.evaluations, self.randomness = evaluation.count, samples.randomness
                found = numbers.of_row(data.reads.row, evaluated)
                progress(1)
                return found

            with closing(reading.rows()) as rows:
                going_on = True
                while going_on:
                    found, error = self._some(rows, of_row)
                    yield from found
                    if error is not None:
                        raise error
                    going_on = bool(found)

    def _some(
        self, rows: Iterator[RowData], of_row: Callable[[RowData], dict[str, list[RowScalars]]]
    ) -> tuple[list[dict[str, list[RowScalars]]], TrajcheckError | None]:
        """The rows of a short while, one at least where any is left; and what ended them, to be raised after them."""
        found: list[dict[str, list[RowScalars]]] = []
        end = time.monotonic() + AT_ONCE
        with self.objective.several():
            try:
                for data in rows:
                    found.append(of_row(data))
                    if time.monotonic() >= end:
                        break
            except TrajcheckError as error:
                return found, error
        return found, None

    def _reducer(self) -> Reducer:
        trajectory, device = self._setting.trajectory, self.objective.device
        if device.type == "cpu":
            return HostReducer(trajectory.shapes)
        return DeviceReducer(trajectory.shapes, device)

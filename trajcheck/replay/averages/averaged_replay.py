"""f(x_t; z) and f(avg_t; z) on samples that are the same on every row, avg_t averages of the iterates up to x_t.

One evaluator gives both: the record's frozen parameters, modes and buffers stand around both points. Batch statistics
that the loss reads are an exception, as those of x_t are none of an average's: at both points they are computed anew
from the batches of the sample, as torch.optim.swa_utils.update_bn does. Some rows are evaluated in the second precision
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.files.extents import Extent
from trajcheck.objective.another_dtype import in_another_dtype
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.averages.running import RunningAverages, begin
from trajcheck.replay.data_set.sample import data_set
from trajcheck.replay.fitting import fit_objective, prepared, recorded_dtype, trained_dtypes
from trajcheck.replay.sample_conventions import probe_samples
from trajcheck.replay.vector_reader import Buffers, VectorReader
from trajcheck.runs.modes import Modes
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.averages import Average, in_groups

#: Endings of batch statistics.
STATISTICS = ("running_mean", "running_var")

#: By sample convention and number of the sample.
Draw = tuple[str, int]
#: f(x_t; z) and f(avg_t; z), None where not finite or, of the average, where there are not enough records for it.
Losses = tuple[float | None, float | None]


@dataclass(frozen=True)
class AveragedRow:
    """What one row has of one average: the losses by draw, and the same in the second precision, None
    where the row is not evaluated in that; or `why` there is nothing."""

    place: int
    average: Average
    losses: Mapping[Draw, Losses]
    second: Mapping[Draw, Losses] | None = None
    why: str = ""
    second_why: str = ""


class AveragedReplay:
    """The losses of one run's averages; `evaluations` counts those that were made."""

    def __init__(
        self,
        trajectory: Trajectory,
        objective: Objective,
        dtype: str,
        second: str | None,
        averages: Sequence[Average],
        samples: Sequence[str],
        memory: int | None = None,
    ) -> None:
        fit_objective(objective, trajectory)
        self.objective = prepared(objective, trajectory, dtype)
        self._trajectory, self._samples, self._second = trajectory, samples, second
        self._groups = in_groups(averages, trajectory.numel, memory)
        self._made: dict[bool, list[tuple[Draw, Sample]]] = {}
        self._kept: dict[Extent, Tensor] = {}
        self.evaluations = 0

    def rows(
        self,
        places: Sequence[int],
        second: Collection[int],
        progress: Callable[[float], object] = lambda rows: None,
    ) -> Iterator[AveragedRow]:
        """The averages at each of `places`, ascending, those in `second` in the second precision too. Raises
        ObjectiveError, naming step and point, StepFileError."""
        buffers = Buffers(torch.device("cpu"))
        for group in self._groups if places else ():
            with VectorReader(buffers) as reader:
                running = RunningAverages(self._trajectory, group, begin(group, places[0]), reader.reader)
                for place in places:
                    while running.place < place:
                        running.advance()
                    yield from self._rows(reader, running, group, place in second)
                    progress(1 / len(self._groups))

    def _rows(
        self, reader: VectorReader, running: RunningAverages, group: Sequence[Average], twice: bool
    ) -> Iterator[AveragedRow]:
        """Those of one record."""
        snapshot = self._trajectory.snapshots[running.place]
        rows = [AveragedRow(running.place, average, {}) for average in group]
        if why := self._no_statistics(snapshot):
            yield from (replace(row, why=why) for row in rows)
            return
        found = self._losses(reader, running, snapshot, False)
        rows = [replace(row, losses=losses) for row, losses in zip(rows, found, strict=True)]
        if twice and self._second is not None:
            try:
                with in_another_dtype(self.objective, self._second, trained_dtypes(self._trajectory)):
                    again = self._losses(reader, running, snapshot, True)
                rows = [replace(row, second=losses) for row, losses in zip(rows, again, strict=True)]
            except ObjectiveError as error:  # which says nothing of the analysis itself
                rows = [replace(row, second={}, second_why=str(error)) for row in rows]
        yield from rows

    def _losses(
        self, reader: VectorReader, running: RunningAverages, snapshot: Snapshot, second: bool
    ) -> list[dict[Draw, Losses]]:
        """Of each of the averages, by draw, with that of x_t before it."""
        objective = self.objective
        frozen, buffers = self._around(reader, snapshot)
        samples = [(draw, replace(each, modes=snapshot.modes)) for draw, each in self._of(reader, second)]

        def at(name: str, point: Mapping[str, Tensor]) -> list[Tensor]:
            where, whole = f"step {snapshot.step}, at {name}", {**point, **frozen}
            fresh = self._statistics(whole, samples, buffers, snapshot.modes, where)
            self.evaluations += len(samples)
            return [
                objective.loss(whole, replace(sample, buffers={**buffers, **fresh[draw[0]]}), where=where)
                for draw, sample in samples
            ]

        vector = reader.vector({name: snapshot.parameters[name] for name in self._trajectory.shapes}, snapshot.step)
        with objective.several():
            found = [at("x_t", {name: tensor.to(objective.device) for name, tensor in vector.tensors.items()})]
            reader.buffers.give(vector)
            for number, average in enumerate(running.averages):
                if not average.missing(running.place):
                    point = running.point(number, objective.dtype_of, objective.device)
                    found.append(at(f"the average {average.spec}", point))
        at_x, *others = [_finite(each) for each in torch.stack([torch.stack(each) for each in found]).cpu().tolist()]
        at_averages = iter(others)
        draws, nothing = [draw for draw, _ in samples], list[float | None]([None] * len(samples))
        return [
            dict(zip(draws, zip(at_x, nothing if few else next(at_averages), strict=True), strict=True))
            for few in (average.missing(running.place) for average in running.averages)
        ]

    def _statistics(
        self,
        point: Mapping[str, Tensor],
        samples: Sequence[tuple[Draw, Sample]],
        buffers: Mapping[str, Tensor],
        modes: Modes | None,
        where: str,
    ) -> dict[str, dict[str, Tensor]]:
        """By sample convention the batch statistics at a point, of its batches; empty where the loss reads none."""
        reads = self.objective.statistics_read(modes) if self.objective.exported_modes is None else set()
        found = {}
        for name in self._samples:
            of_name = [sample for draw, sample in samples if draw[0] == name]
            found[name] = self.objective.batch_statistics(point, of_name, buffers, where=where) if reads else {}
            self.evaluations += len(of_name) * bool(reads)
        return found

    def _no_statistics(self, snapshot: Snapshot) -> str:
        """Why the batch statistics at another point than x_t cannot be had; '' where they can, or none are read."""
        objective = self.objective
        own = objective.exported_modes if objective.exported_modes is not None else snapshot.modes
        if own is None:
            return ""
        anew = objective.statistics_read(snapshot.modes) if objective.exported_modes is None else set()
        read = [name for name in snapshot.buffers if name.endswith(STATISTICS) and _evaluates(own, name)]
        if missing := [name for name in read if name not in anew]:
            return (
                f"the loss reads the batch statistics {missing[0]}, which were recorded at x_t and are none of an "
                "average's, and they cannot be computed anew"
                + ("; an objective file (--objective FILE.py:NAME) can" if objective.exported_modes is not None else "")
            )
        return ""

    def _of(self, reader: VectorReader, second: bool) -> list[tuple[Draw, Sample]]:
        """The samples in the replay's dtype, or the second."""
        if second not in self._made:
            recorded, found = recorded_dtype(self._trajectory), list[tuple[Draw, Sample]]()
            for name in self._samples:
                if name == "full":
                    found.append((("full", 0), data_set(self.objective, recorded)))
                else:
                    made = probe_samples(self._trajectory, self.objective, recorded, reader.tensor)
                    found += [(("probe", number), sample) for number, sample in enumerate(made)]
            self._made[second] = found
        return self._made[second]

    def _around(self, reader: VectorReader, snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Frozen parameters and buffers of a record; those of the record before where they lie in the same place."""
        extents = {*snapshot.frozen.values(), *snapshot.buffers.values()}
        before = self._kept
        self._kept = {e: before[e] if e in before else reader.tensor(e).to(self.objective.device) for e in extents}
        frozen, buffers = (
            {name: self._kept[e] for name, e in table.items()} for table in (snapshot.frozen, snapshot.buffers)
        )
        return frozen, buffers


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _evaluates(modes: Modes, buffer: str) -> bool:
    """Whether the module of a buffer is in evaluation."""
    path = buffer.rpartition(".")[0]
    while path and path not in modes:
        path = path.rpartition(".")[0]
    return modes.get(path, "train") == "eval"

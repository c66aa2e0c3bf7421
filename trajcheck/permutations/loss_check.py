"""Whether an order of units that was found leaves the loss as it is: the test of a declared symmetry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.permutations.weight_matching import Matched
from trajcheck.replay.fitting import fit_objective, recorded_dtype
from trajcheck.replay.sample_conventions import probe_samples, recorded_sample
from trajcheck.runs.trajectory import Trajectory

#: Largest relative change of the loss: the rounding of programs that compute in float32 whatever they are given.
TOLERANCE = 1e-6


class SymmetryCheck:
    """Evaluates a network and the same with permuted units by one objective, in float64, on one sample: the run's first
    recorded one, else its first probe batch.

    Dropout of torch's own modules is off, since a mask does not move with the units. Leaves the objective fitted to the
    run. Raises ObjectiveError where it does not fit, or no sample was recorded.
    """

    def __init__(self, objective: Objective, trajectory: Trajectory) -> None:
        fit_objective(objective, trajectory)
        self.objective, self.names = objective.prepare("float64"), tuple(trajectory.shapes)
        with ExtentReader() as reader:
            self.sample, self.where = self._sample(trajectory, reader)
            frozen = trajectory.snapshots[0].frozen
            self.frozen = {name: read_tensor(reader, extent) for name, extent in frozen.items()}

    def losses(self, parameters: Mapping[str, Extent], matched: Matched, title: str) -> tuple[float, float]:
        """f at the point b that `parameters` hold, and at P b.

        Raises ObjectiveError where they differ by more than TOLERANCE, naming the groups that change the loss alone.
        """
        with ExtentReader() as reader:
            point = {name: read_tensor(reader, parameters[name]).double() for name in self.names}
        before = self._loss(point, title)
        after = self._loss(self._permuted(point, matched), f"{title}, permuted")
        if not _same(before, after):
            raise self._error(title, before, after, self._guilty(point, matched, before, title))
        return before, after

    def _guilty(self, point: Mapping[str, Tensor], matched: Matched, before: float, title: str) -> list[str]:
        """The groups whose order changes the loss when all other units stay."""
        found = []
        for group, order in matched.found.items():
            alone = Matched(matched.permutations, {**matched.permutations.identity, group: order}, 0)
            if not _same(before, self._loss(self._permuted(point, alone), f"{title}, group {group} permuted")):
                found.append(group)
        return found

    def _permuted(self, point: Mapping[str, Tensor], matched: Matched) -> dict[str, Tensor]:
        return {name: torch.from_numpy(matched.permute(name, tensor.numpy()).copy()) for name, tensor in point.items()}

    def _loss(self, point: Mapping[str, Tensor], where: str) -> float:
        with self.objective.without_dropout():
            return float(self.objective.loss({**point, **self.frozen}, self.sample, where=where))

    def _sample(self, trajectory: Trajectory, reader: ExtentReader) -> tuple[Sample, str]:
        load, dtype = partial(read_tensor, reader), recorded_dtype(trajectory)
        for snapshot in trajectory.snapshots:
            if not trajectory.no_sample(snapshot):
                sample = recorded_sample(trajectory, snapshot, self.objective, dtype, load)
                return sample, f"the sample of step {snapshot.step}"
        if samples := probe_samples(trajectory, self.objective, dtype, load):
            return samples[0], "the first probe batch"
        raise ObjectiveError(
            f"{trajectory.path}: no batch was recorded, so it cannot be checked that permuting leaves the loss "
            "unchanged; --match-permutations needs one (Recorder.observe, or Recorder.probe)."
        )

    def _error(self, title: str, before: float, after: float, guilty: list[str]) -> ObjectiveError:
        groups = f"group {', '.join(map(repr, guilty))}" if guilty else "the groups together"
        return ObjectiveError(
            f"objective {self.objective.title}: PERMUTATIONS does not describe a symmetry of this loss: at {title}, "
            f"permuted, it is {after!r} on {self.where}; expected {before!r}, as without. At fault: {groups}. Each "
            "group must list every axis on which its units lie (bias, the scale and shift of a normalisation, all "
            "layers that read them), with its block; dropout by F.dropout, or noise in the loss, is no symmetry either."
        )


def _same(before: float, after: float) -> bool:
    return math.isfinite(before) and abs(after - before) <= TOLERANCE * max(abs(before), abs(after))

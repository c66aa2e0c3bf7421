"""The loss along the straight line between two iterates, re-evaluated on one sample of the first run's record.

x(s) = (1-s) x_a + s x_b, frozen parameters included. Either end has its own buffers, and the points between theirs:
real and complex floating ones on the line too, so that a table that is equal stays what it is; others (counters,
masks) are those of x_a up to the end. Batch statistics on such a line are no network's statistics: where they are
read, in evaluation, mode "eval" computes them anew at every point, ends included, as torch.optim.swa_utils.update_bn
does. Randomness and modes are those of the sample at every s, so that the losses may be subtracted. Whole models are
on the device here: x_a, x_b, x(s), and a fourth where x_b lies between two records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError, RunError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.torch_tensors import FLOATING, read_tensor
from trajcheck.measuring.precision import ReplayPrecision
from trajcheck.metrics.resolution import Rounding
from trajcheck.objective.another_dtype import in_another_dtype
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.permutations.weight_matching import Matched
from trajcheck.replay.data_set.sample import data_set
from trajcheck.replay.fitting import epsilon, fit_objective, prepared, recorded_dtype, trained_dtypes
from trajcheck.replay.plan import rows_twice, second_dtype
from trajcheck.replay.sample_conventions import probe_samples, recorded_sample
from trajcheck.runs.modes import modes_in_words
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import Pair
from trajcheck.scalars.rows import evenly


def line_points(count: int) -> np.ndarray:
    """s = 0, 1/(count+1), ..., 1: both ends and `count` points between them."""
    return np.arange(count + 2) / (count + 1)


class StraightLine:
    """Losses between the iterates of A and those of other runs, on A's samples.

    `sample` is own (z of A's record), probe (A's probe batches) or full (the objective's data set); `mode` recorded
    (that of A's record), train or eval. Raises ObjectiveError where the objective does not fit the run, or has one mode
    alone.
    """

    def __init__(
        self,
        a: Trajectory,
        objective: Objective,
        precision: ReplayPrecision,
        sample: str,
        count: int,
        mode: str = "recorded",
    ) -> None:
        fit_objective(objective, a)
        if mode != "recorded" and objective.exported_modes is not None:
            raise ObjectiveError(
                f"--mode {mode}: objective {objective.title} is an exported program, of a model in "
                f"{modes_in_words(objective.exported_modes)}, and has no other mode; give an objective file "
                "(--objective FILE.py:NAME)"
            )
        self.mode = mode
        self._modes: set[str] = set()  # in which losses were taken, in words
        self._statistics: set[str] = set()  # batch statistics that were read between the ends of a line
        self.precision, dtype = precision, precision.dtype
        self.objective = prepared(objective, a, dtype)
        self.dtype, self.epsilon = dtype, epsilon(dtype, a)
        self.count, self.failed = count, ""  # why rounding could not be measured
        self.a, self.sample, self.s = a, sample, line_points(count)
        self.recorded_dtype = recorded_dtype(a)
        self.evaluations = 0
        self.fixed: list[Sample] = []
        with ExtentReader() as self.reader:
            if sample == "probe":
                self.fixed = probe_samples(a, objective, self.recorded_dtype, self._tensor)
            elif sample == "full":
                self.fixed = [data_set(objective, self.recorded_dtype)]

    @property
    def rounding(self) -> Rounding:
        """Of the losses, and of what it is measured in."""
        second = second_dtype(self.a, self.dtype)
        return Rounding(self.epsilon, max(self.epsilon, epsilon(second, self.a) if second else 0.0))

    @property
    def draws(self) -> int:
        """How many samples a row has."""
        return max(1, len(self.fixed))

    @property
    def facts(self) -> dict[str, Any]:
        """How the losses were taken, as summary.json has it."""
        return {
            "sample": self.sample,
            "of": str(self.a.path),
            "points": [float(s) for s in self.s],
            "dtype": self.dtype,
            "why": self.precision.why,
            "device": str(self.objective.device),
            "epsilon": self.epsilon,
            "evaluations": self.evaluations,
            "mode": "; ".join(sorted(self._modes)) or None,
            "interpolated_statistics": sorted(self._statistics),
            **({"rounding_failed": self.failed} if self.failed else {}),
            **({"data": dict(self.objective.facts)} if self.objective.facts else {}),
            **({"data_set": self.fixed[0].randomness} if self.sample == "full" else {}),
        }

    def losses(
        self, b: Trajectory, pairs: Sequence[Pair], missing: Sequence[str], matched: Matched | None = None
    ) -> Iterator[np.ndarray]:
        """For each pair the losses [draws, points], NaN where `missing` gives a reason. Raises ObjectiveError."""
        if _frozen(self.a) != _frozen(b):
            raise RunError(
                f"{self.a.path} and {b.path} froze different parameters: {_text(_frozen(self.a))}; and "
                f"{_text(_frozen(b))}. The loss along the line between them needs the same."
            )
        with ExtentReader() as self.reader:
            for pair, reason in zip(pairs, missing, strict=True):
                if reason:
                    yield np.full((self.draws, len(self.s)), np.nan)
                else:
                    yield self._row(b, pair, matched)

    def in_second(
        self, b: Trajectory, pairs: Sequence[Pair], missing: Sequence[str], matched: Matched | None = None
    ) -> np.ndarray:
        """The losses of some pairs, spread over them, in the next wider precision [pairs, draws, points], what was not
        evaluated NaN; all of it where the objective fails there, and `failed` says why."""
        found = np.full((len(pairs), self.draws, len(self.s)), np.nan)
        second = second_dtype(self.a, self.dtype)
        chosen = (
            evenly([number for number, why in enumerate(missing) if not why], rows_twice(self.dtype)) if second else []
        )
        if second is None or not chosen:
            return found
        try:
            with in_another_dtype(self.objective, second, trained_dtypes(self.a)):
                line = StraightLine(
                    self.a, self.objective, ReplayPrecision(second, "", second), self.sample, self.count, self.mode
                )
                some = line.losses(b, [pairs[number] for number in chosen], [""] * len(chosen), matched)
                for number, losses in zip(chosen, some, strict=True):
                    found[number] = losses
                self.evaluations += line.evaluations
        except ObjectiveError as error:
            self.failed = str(error)
            found[:] = np.nan
        return found

    def _row(self, b: Trajectory, pair: Pair, matched: Matched | None) -> np.ndarray:
        snapshot = self.a.snapshots[pair.place_a]
        start, end = self._iterate(snapshot), self._iterate(b.snapshots[pair.place_b], matched)
        if pair.interpolated:
            end = self._between(end, self._iterate(b.snapshots[pair.place_b + 1], matched), pair.fraction)
        near = [self._buffers(b.snapshots[place], matched) for place in pair.near_b]
        buffers_a, buffers_b = self._buffers(snapshot), self._mixed(near[0], near[-1], pair.fraction)
        samples = self._samples(snapshot)
        if self.mode == "recorded":
            self._statistics |= self.objective.statistics_read(snapshot.modes) & _different(buffers_a, buffers_b)
        found = torch.empty((len(samples), len(self.s)), dtype=torch.float64, device=self.objective.device)
        for column, s in enumerate(self.s):
            point = self._between(start, end, float(s))
            where = f"step {snapshot.step}, {s:.3g} of the way to {b.path} at step {b.steps[pair.place_b]}"
            buffers = self._mixed(buffers_a, buffers_b, float(s))
            if self.mode == "eval":
                buffers = {**buffers, **self.objective.batch_statistics(point, samples, buffers, where=where)}
                self.evaluations += len(samples)
            for row, sample in enumerate(samples):
                found[row, column] = self.objective.loss(point, replace(sample, buffers=buffers), where=where)
                self.evaluations += 1
        return found.cpu().numpy()

    def _samples(self, snapshot: Snapshot) -> list[Sample]:
        samples = self.fixed
        if self.sample == "own":
            own = recorded_sample(self.a, snapshot, self.objective, self.recorded_dtype, self._tensor)
            samples = [replace(own, rank_buffers={})]
        modes = {"recorded": snapshot.modes, "train": {}, "eval": {"": "eval"}}[self.mode]
        self._modes.add(self.objective.mode_in_words(modes))
        return [replace(sample, modes=modes) for sample in samples]

    def _buffers(self, snapshot: Snapshot, matched: Matched | None = None) -> dict[str, Tensor]:
        """The buffers of a record; `matched`: statistics of units in the order of A's, as the weight beside them."""
        found = {}
        for name, extent in snapshot.buffers.items():
            tensor, weight = self._tensor(extent), f"{name.rpartition('.')[0]}.weight"
            if matched is not None and tensor.ndim == 1 and self.a.shapes.get(weight) == tensor.shape:
                tensor = torch.from_numpy(np.ascontiguousarray(matched.permute(weight, tensor.numpy())))
            found[name] = tensor.to(self.objective.device)
        return found

    @staticmethod
    def _mixed(a: Mapping[str, Tensor], b: Mapping[str, Tensor], s: float) -> dict[str, Tensor]:
        """Buffers at s: on the line where both have numbers of one shape, else those of a up to the end."""
        found = {**b, **a} if s < 1 else {**a, **b}
        for name in a.keys() & b.keys():
            one, other = a[name], b[name]
            if (one.dtype in FLOATING or one.is_complex()) and (one.dtype, one.shape) == (other.dtype, other.shape):
                found[name] = torch.lerp(one, other, s)
        return found

    def _between(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor], s: float) -> dict[str, Tensor]:
        """(1-s) a + s b in the replay's dtype: a itself at 0 and b itself at 1."""
        found = {}
        for name in a:
            dtype = self.objective.dtype_of(name)
            if dtype in FLOATING:
                found[name] = torch.lerp(a[name].to(dtype), b[name].to(dtype), s)
            elif torch.equal(a[name].to(dtype), b[name].to(dtype)):
                found[name] = a[name]
            else:
                raise RunError(
                    f"{self.a.path}: the frozen {name} is {str(dtype).removeprefix('torch.')}, and differs between the "
                    "runs: there is no line between codes."
                )
        return found

    def _iterate(self, snapshot: Snapshot, matched: Matched | None = None) -> dict[str, Tensor]:
        """All parameters of a record; `matched`: in the order of A's units."""
        found = {}
        for name, extent in {**dict(snapshot.frozen), **dict(snapshot.parameters)}.items():
            tensor = self._tensor(extent)
            if matched is not None:
                wide = matched.permute(name, tensor.double().numpy())
                tensor = torch.from_numpy(np.ascontiguousarray(wide)).to(tensor.dtype)
            found[name] = tensor.to(self.objective.device)
        return found

    def _tensor(self, extent: Extent) -> Tensor:
        return read_tensor(self.reader, extent)


def _different(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> set[str]:
    return {name for name in a.keys() & b.keys() if not torch.equal(a[name], b[name])}


def _frozen(run: Trajectory) -> dict[str, tuple[int, ...]]:
    return {name: extent.shape for name, extent in run.snapshots[0].frozen.items()}


def _text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    names = [f"{name} {list(shape)}" for name, shape in shapes.items()]
    return f"{', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}" or "none"

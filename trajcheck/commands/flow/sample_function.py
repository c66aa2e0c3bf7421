"""The one sample on which a flow is: a function of theta alone, with its gradient and its Hessian.

A flow needs the same f at every time: batches, their randomness (the same dropout masks at every evaluation), the
model's buffers and its frozen parameters stay those of the step where it starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trajcheck.commands.flow.options import FLOW_SAMPLES
from trajcheck.errors import RunError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.objective.curvature.lanczos import TOLERANCE, Extremes, extreme_eigenvalues
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.data_set.sample import DataSet, data_set
from trajcheck.replay.fitting import fit_objective, prepared, recorded_dtype
from trajcheck.replay.sample_conventions import buffers_of, probe_samples, recorded_sample
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory


class SampleFunction:
    """f(theta) = the mean over `samples` of f(theta; z), theta [n] float64: the trainable parameters `shapes`, one
    after the other. Results are float64, whatever the dtype of the evaluation; NaN and Inf are returned as they are.

    `evaluations` counts the gradients and losses, over all of the samples. Errors: ObjectiveError.
    """

    def __init__(
        self,
        objective: Objective,
        samples: Sequence[Sample],
        frozen: Mapping[str, Tensor],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._objective, self._samples, self._frozen, self._shapes = objective, samples, frozen, shapes
        self._sizes = [math.prod(shape) for shape in shapes.values()]
        self.evaluations = 0

    def many(self) -> AbstractContextManager[None]:
        """Around many evaluations, which are the same and take half as long: see `Objective.several`."""
        return self._objective.several()

    def loss(self, theta: np.ndarray, where: str) -> float:
        self.evaluations += 1
        x = self._tensors(theta)
        return self._mean([float(self._objective.loss(x, sample, where=where)) for sample in self._samples])

    def loss_and_gradient(self, theta: np.ndarray, where: str) -> tuple[float, np.ndarray]:
        """f(theta) and grad f(theta) [n]."""
        self.evaluations += 1
        x = self._tensors(theta)
        losses, gradient = [], np.zeros(len(theta))
        for sample in self._samples:
            loss, parts = self._objective.loss_and_gradient(x, sample, where=where)
            losses.append(float(loss))
            gradient += np.concatenate([parts[name].double().reshape(-1).cpu().numpy() for name in self._shapes])
        return self._mean(losses), gradient / len(self._samples)

    def extremes(self, theta: np.ndarray, seed: int, where: str) -> Extremes:
        """The Hessian's extreme eigenvalues at theta, by Lanczos from a start vector that `seed` determines."""
        x = self._tensors(theta)
        hessians = [
            self._objective.hessian(x, sample, where=where, keep_graph=not isinstance(sample, DataSet))
            for sample in self._samples
        ]

        def product(v: Tensor) -> Tensor:
            total = hessians[0].product(v)
            for hessian in hessians[1:]:
                total = total + hessian.product(v)
            return total / len(hessians)

        first = hessians[0]
        return extreme_eigenvalues(
            product, first.dimension, device=first.device, dtype=first.dtype, seed=seed, tolerance=TOLERANCE
        )

    def is_random(self, theta: np.ndarray, where: str) -> bool:
        """Whether f depends on random draws: whether another seed gives another loss."""
        other = [replace(sample, generators={}, seed=sample.seed + 1) for sample in self._samples]
        function = SampleFunction(self._objective, other, self._frozen, self._shapes)
        self.evaluations += 1
        return function.loss(theta, where) != self.loss(theta, where)

    @property
    def weighing(self) -> str:
        """How the batches of the data set weigh; "" where it is not the sample."""
        return next((each.randomness for each in self._samples if isinstance(each, DataSet)), "")

    @staticmethod
    def _mean(losses: Sequence[float]) -> float:
        return sum(losses) / len(losses)

    def _tensors(self, theta: np.ndarray) -> dict[str, Tensor]:
        parts = torch.from_numpy(np.array(theta)).split(self._sizes)
        # Clones lie aligned as torch's own tensors do: kernels may round otherwise on other addresses.
        x = {
            name: part.to(self._objective.device, self._objective.dtype).clone().reshape(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        return {**x, **self._frozen}


def flow_function(
    trajectory: Trajectory, place: int, objective: Objective, asked: str | None
) -> tuple[str, SampleFunction]:
    """The sample's name, `asked` or the first that there is of full, own, probe, and f on it; the flow starts at the
    record at `place`. `objective` is checked against the run, and must be prepared.

    Errors: ObjectiveError for an objective of another model, or without a data set for `full`; RunError where the run
    has no probe batches, or not one batch for all of its records.
    """
    snapshot = trajectory.snapshots[place]
    fit_objective(objective, trajectory)
    if objective.dtype is not None:
        prepared(objective, trajectory, str(objective.dtype).removeprefix("torch."))
    dtype = recorded_dtype(trajectory)
    with ExtentReader() as reader:

        def load(extent: Extent) -> Tensor:
            return read_tensor(reader, extent)

        many = several_batches(trajectory, place, reader)
        name = asked or _first_of(trajectory, objective, many)
        if name == "full":
            samples: list[Sample] = [data_set(objective, dtype)]
        elif name == "probe":
            if not trajectory.probes:
                raise RunError(
                    f"{trajectory.path}: no probe batches were stored with this run (probe-000.safetensors); expected "
                    "for --sample probe. Recorder.probe(batches) stores them, and --probe N draws some of the "
                    "objective's data."
                )
            samples = list(probe_samples(trajectory, objective, dtype, load))
        else:
            if many:
                raise RunError(f"{trajectory.path}: --sample own needs one full batch for all records, but {many}.")
            samples = [recorded_sample(trajectory, snapshot, objective, dtype, load)]  # with that step's draws
        buffers = buffers_of(snapshot, objective, load)
        samples = [replace(sample, buffers=buffers) if buffers else sample for sample in samples]
        frozen = {key: load(extent).to(objective.device) for key, extent in snapshot.frozen.items()}
    return name, SampleFunction(objective, samples, frozen, trajectory.shapes)


def _first_of(trajectory: Trajectory, objective: Objective, many: str) -> str:
    there = {"full": objective.data is not None, "own": not many, "probe": bool(trajectory.probes)}
    for name in ("full", "own", "probe"):
        if there[name]:
            return name
    raise RunError(
        f"{trajectory.path}: there is no one sample for a flow: the objective gives no data set, {many}, and no probe "
        f"batches were stored. Expected one of {', '.join(FLOW_SAMPLES)}: let NAME() return (model, loss, batches), "
        "batches being the data set, for --sample full."
    )


def several_batches(trajectory: Trajectory, place: int, reader: ExtentReader) -> str:
    """Why the records from `place` on do not have one batch in common, in words; '' where they have.

    A batch that is stored once, or again and again with the same bytes, is one. The iterate that closes a run needs
    none.
    """
    first: Snapshot | None = None
    weights = None
    for snapshot in trajectory.snapshots[place:]:
        source = trajectory.batch_source(snapshot)
        if source is None:
            if snapshot is trajectory.snapshots[-1] and first is not None:
                continue
            return f"no batch was recorded at step {snapshot.step}"
        if unknown := trajectory.no_sample(snapshot):
            return f"at step {snapshot.step} {unknown}"
        found = snapshot.micro_weights or source.micro_weights
        if first is None:
            first, weights = source, found
        elif found != weights:
            return (
                f"the micro-batches of step {snapshot.step} are weighed in another way than those of step {first.step}"
            )
        elif source is not first and not _same_batch(first, source, reader):
            return f"the batch of step {source.step} is not that of step {first.step}"
    return ""


def _same_batch(a: Snapshot, b: Snapshot, reader: ExtentReader) -> bool:
    if (a.batch_tree, a.micro_batches) != (b.batch_tree, b.micro_batches):
        return False
    if set(a.batch) != set(b.batch):
        return False
    for name, one in a.batch.items():
        other = b.batch[name]
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        if bytes(reader.raw(one, 0, one.length)) != bytes(reader.raw(other, 0, other.length)):
            return False
    return True

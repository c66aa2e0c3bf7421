"""On which samples the steps of a run are replayed: --sample own, previous, probe, full.

Each gives the samples of one row: one, or one a probe batch. Which rows have none, and why, is in rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError, StepFileError, TrajcheckError
from trajcheck.files.extents import Extent
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample, cast, make_sample, process_generators_untouched, seed_generators
from trajcheck.runs.batch_tree import flatten, unflatten
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory

Load = Callable[[Extent], Tensor]


def recorded_sample(
    trajectory: Trajectory, snapshot: Snapshot, objective: Objective, recorded_dtype: torch.dtype | None, load: Load
) -> Sample:
    """z_t: the batches of a recorded step with its buffers and generator states. Only where `Trajectory.no_sample` has
    no reason against it: a weight that is not known is an error."""
    source = trajectory.batch_source(snapshot)
    assert source is not None
    weights = snapshot.micro_weights or source.micro_weights
    sample = make_sample(
        {path: load(extent) for path, extent in source.batch.items()},
        device=objective.device,
        tree=source.batch_tree,
        micro_batches=source.micro_batches,
        weights=None if weights is None else [weight for weight in weights if weight is not None],
        buffers=buffers_of(snapshot, objective, load),
        generators={name: load(extent) for name, extent in snapshot.generators.items()},
        seed=snapshot.step,
        dtype=objective.dtype,
        recorded_dtype=recorded_dtype,
        recorded_torch=trajectory.info.versions.get("torch"),
        forwards=snapshot.forwards,
        no_randomness=snapshot.omitted.get("randomness"),
    )
    others = {
        start: {name: load(extent).to(objective.device) for name, extent in buffers.items()}
        for start, buffers in snapshot.rank_buffers.items()
    }
    return replace(sample, rank_buffers=others) if others else sample


def probe_samples(
    trajectory: Trajectory, objective: Objective, recorded_dtype: torch.dtype | None, load: Load
) -> list[Sample]:
    """The probe batches, each a sample of its own; batch i is seeded with i, at every step and point."""
    samples: list[Sample] = []
    for probe in trajectory.probes:
        stored = {path: load(extent) for path, extent in probe.batch.items()}
        try:
            batches = unflatten(stored, probe.batch_tree)
        except StepFileError as error:
            raise StepFileError(f"{probe.path}: {error}") from error
        if not isinstance(batches, tuple | list) or len(batches) != probe.batches:
            raise StepFileError(f"{probe.path}: its tensors do not make {probe.batches} batches.")
        for batch in batches:
            tensors, tree = flatten(batch)
            samples.append(
                make_sample(
                    tensors,
                    device=objective.device,
                    tree=tree,
                    seed=len(samples),
                    dtype=objective.dtype,
                    recorded_dtype=recorded_dtype,
                )
            )
    return samples


def buffers_of(snapshot: Snapshot, objective: Objective, load: Load) -> dict[str, Tensor]:
    return {name: load(extent).to(objective.device) for name, extent in snapshot.buffers.items()}


@dataclass(frozen=True)
class DataSet(Sample):
    """All of a data set as one sample: f is the mean over it, each batch weighing as many as its examples.

    `walk` goes through it anew for every evaluation, so that only one batch is on the device at a time.
    """

    walk: Callable[[], Iterable[Any]] = tuple

    def batches(self, where: str = "") -> Iterable[Any]:
        return self.walk()


def data_set(objective: Objective, recorded_dtype: torch.dtype | None) -> DataSet:
    """The objective file's data set, walked once for the sizes of its batches.

    Errors: ObjectiveError where the objective has none, it is empty, or it gives other batches the second time.
    """
    if objective.data is None:
        raise ObjectiveError(
            f"objective {objective.title}: --sample full needs the data set: let NAME() return (model, loss, batches), "
            "batches being iterable again and again"
        )
    with process_generators_untouched(objective.device):
        seed_generators(0, objective.device)
        sizes, first = [], None
        for batch in _walk(objective):
            tensors, _ = _flatten(objective, batch)
            first = tensors if first is None else first
            sizes.append(_examples(tensors))
    with process_generators_untouched(objective.device):
        seed_generators(1, objective.device)  # one that shuffles gives others now
        again = next(iter(_walk(objective)), None)
    if first is None:
        raise ObjectiveError(f"objective {objective.title}: its data set has no batches")
    if again is None or not _equal(first, _flatten(objective, again)[0]):
        raise ObjectiveError(
            f"objective {objective.title}: its data set gives other batches the second time; return a list of batches, "
            "or a DataLoader without shuffling and augmentation, not a generator"
        )

    def walk() -> Iterator[Any]:
        count = 0
        for count, batch in enumerate(_walk(objective), start=1):
            if count > len(sizes):
                break
            tensors, tree = _flatten(objective, batch)
            yield unflatten(
                {
                    path: cast(tensor, objective.device, objective.dtype, recorded_dtype, copy=True)
                    for path, tensor in tensors.items()
                },
                tree,
            )
        if count != len(sizes):
            raise ObjectiveError(
                f"objective {objective.title}: its data set had {len(sizes)} batches the first time, and now another "
                "number"
            )

    return DataSet(tensors={}, weights=tuple(size / sum(sizes) for size in sizes), walk=walk)


def _walk(objective: Objective) -> Iterator[Any]:
    try:
        yield from objective.data or ()
    except TrajcheckError:
        raise
    except Exception as error:
        raise ObjectiveError(
            f"objective {objective.title}: its data set raised {type(error).__name__}: {error}"
        ) from error


def _flatten(objective: Objective, batch: Any) -> tuple[dict[str, Tensor], Any]:
    try:
        return flatten(batch)
    except TrajcheckError as error:
        raise ObjectiveError(f"objective {objective.title}: its data set: {error}") from error


def _examples(tensors: Mapping[str, Tensor]) -> int:
    """The length of the first tensor's first dimension; 1 for a batch without tensors, or of numbers."""
    first = next(iter(tensors.values()), None)
    return 1 if first is None or not first.ndim else max(1, len(first))


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].shape == b[name].shape and torch.equal(a[name], b[name]) for name in a)

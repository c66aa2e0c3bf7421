"""On which samples the steps of a run are replayed: --sample own, previous, probe; full is in data_set/.

Each gives the samples of one row: one, or one a probe batch. Which rows have none, and why, is in rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample, make_sample
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.batch_restoring import unflatten
from trajcheck.runs.snapshot import Probe, Snapshot
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
    return replace(sample, rank_buffers=others, modes=snapshot.modes)


def probe_samples(
    trajectory: Trajectory, objective: Objective, recorded_dtype: torch.dtype | None, load: Load
) -> list[Sample]:
    """The probe batches, each a sample of its own; batch i is seeded with i, at every step and point."""
    samples: list[Sample] = []
    for probe in trajectory.probes:
        for batch in _stored(probe, load) if probe.path else objective.probes:
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


def _stored(probe: Probe, load: Load) -> Sequence[Any]:
    """The batches of a probe file. Raises StepFileError."""
    stored = {path: load(extent) for path, extent in probe.batch.items()}
    try:
        batches = unflatten(stored, probe.batch_tree)
    except StepFileError as error:
        raise StepFileError(f"{probe.path}: {error}") from error
    if not isinstance(batches, tuple | list) or len(batches) != probe.batches:
        raise StepFileError(f"{probe.path}: its tensors do not make {probe.batches} batches.")
    return batches


def buffers_of(snapshot: Snapshot, objective: Objective, load: Load) -> dict[str, Tensor]:
    return {name: load(extent).to(objective.device) for name, extent in snapshot.buffers.items()}

"""What is read for a trial of an objective (trial.py), known from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trajcheck.files.extents import Extent
from trajcheck.replay.around import extents_around
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row


@dataclass(frozen=True)
class TrialReads:
    """The iterate at `place`, frozen parameters included, on its own sample, the first of the probe batches, or the
    first batch of the objective's data set, as `sample` says; `extents` are all that is read, each once."""

    place: int
    sample: str
    point: Mapping[str, Extent]
    extents: tuple[Extent, ...]


def trial_reads(trajectory: Trajectory, rows: Sequence[Row], samples: Collection[str]) -> TrialReads | None:
    """Those of the first row that has a sample of its own, or can be evaluated on probe batches or on the data set, as
    `samples` ask for; None without any."""
    own = next((row.place for row in rows if not row.no_sample), None)
    other = next((row.place for row in rows if not row.no_evaluation), None)
    if own is not None:
        place, sample = own, "own"
    elif other is not None and (trajectory.probes or "full" in samples):
        place, sample = other, "probe" if trajectory.probes else "full"
    else:
        return None
    snapshot = trajectory.snapshots[place]
    point = {**dict(snapshot.frozen), **{name: snapshot.parameters[name] for name in trajectory.shapes}}
    beside = [extent for each in trajectory.probes for extent in each.batch.values()]
    if sample == "own":
        source = trajectory.batch_source(snapshot)
        assert source is not None
        beside = [*source.batch.values(), *snapshot.generators.values(), *extents_around(snapshot)]
    return TrialReads(place, sample, point, tuple(dict.fromkeys([*point.values(), *beside])))

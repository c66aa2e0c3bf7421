"""What is read for a trial of an objective (trial.py), known from headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trajcheck.files.extents import Extent
from trajcheck.replay.around import extents_around
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row


@dataclass(frozen=True)
class TrialReads:
    """The iterate at `place`, frozen parameters included, on its `own` sample or on the probe batches; `extents` are
    all that is read, each once."""

    place: int
    own: bool
    point: Mapping[str, Extent]
    extents: tuple[Extent, ...]


def trial_reads(trajectory: Trajectory, rows: Sequence[Row]) -> TrialReads | None:
    """Those of the first row that has a sample of its own, or can be evaluated on probe batches; None without any."""
    snapshots = trajectory.snapshots
    own = next((row.place for row in rows if not row.no_sample), None)
    probe = next((row.place for row in rows if trajectory.probes and not row.no_evaluation), None)
    place = probe if own is None else own
    if place is None:
        return None
    snapshot = snapshots[place]
    point = {**dict(snapshot.frozen), **{name: snapshot.parameters[name] for name in trajectory.shapes}}
    beside = [extent for each in trajectory.probes for extent in each.batch.values()]
    if own is not None:
        source = trajectory.batch_source(snapshot)
        assert source is not None
        beside = [*source.batch.values(), *snapshot.generators.values(), *extents_around(snapshot)]
    return TrialReads(place, own is not None, point, tuple(dict.fromkeys([*point.values(), *beside])))

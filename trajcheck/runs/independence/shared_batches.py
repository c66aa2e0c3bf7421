"""Whether two runs took the same batches, by what both recorded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.trajectory import Trajectory

#: Steps that are compared at the most for each way in which the runs' steps may belong together; bytes of a tensor.
STEPS, BYTES = 16, 1 << 20


def same_batches(
    reader: ExtentReader, other: Trajectory, trajectory: Trajectory, shared: tuple[int, int] | None
) -> tuple[int, ...] | None:
    """A step whose batch another run took too, (step,); () where all that were compared differ; None where none could
    be compared.

    Compared are steps of equal number, and those equally far from the runs' beginnings: jobs that shuffle by one seed
    take one order. `shared` is (last, shift) of runs that go together up to step `last`, which is step `last - shift`
    of the other: steps from there on are compared too, and none before. A run of one full batch has no other.
    """
    if full_batch(trajectory):
        return ()
    ways = {0: -1, trajectory.steps[0] - other.steps[0]: -1}
    if shared is not None:
        ways[shared[1]] = shared[0]
    compared = False
    for shift, begin in ways.items():
        steps = [step for step in trajectory.steps if step >= begin and other.index(step - shift) is not None]
        pairs = [(step, _batch(trajectory, step), _batch(other, step - shift)) for step in steps]
        pairs = [each for each in pairs if each[1] and each[2]]
        for place in np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), STEPS)).round().astype(int)):
            step, ours, theirs = pairs[place]
            compared = True
            if _equal(reader, ours, theirs):
                return (step,)
    return () if compared else None


def _batch(trajectory: Trajectory, step: int) -> Mapping[str, Extent]:
    place = trajectory.index(step)
    assert place is not None
    source = trajectory.batch_source(trajectory.snapshots[place])
    return {} if source is None else source.batch


def full_batch(trajectory: Trajectory) -> bool:
    """Whether all records have one batch, which is stored once."""
    sources = [trajectory.batch_source(snapshot) for snapshot in trajectory.snapshots]
    steps = [source.step for source in sources if source is not None]
    return len(steps) > 1 and len(set(steps)) == 1


def _equal(reader: ExtentReader, ours: Mapping[str, Extent], theirs: Mapping[str, Extent]) -> bool:
    if ours.keys() != theirs.keys():
        return False
    for name, extent in ours.items():
        another = theirs[name]
        if (extent.dtype, extent.shape) != (another.dtype, another.shape):
            return False
        length = min(BYTES, extent.length)
        if bytes(reader.raw(extent, 0, length)) != bytes(reader.raw(another, 0, length)):
            return False
    return True

"""What a point is evaluated with beside the trained parameters: frozen parameters and buffers.

On samples that are the same on every row (probe, full) each point has its own: x_t those of its record, x* those of the
iterate that it is. On a step's own sample all points have those of the sample, so that what is subtracted differs in x
alone: what changes from step to step, as batch statistics, a queue or a teacher do, belongs to z_t. What the run never
changes, as tables and frozen layers, is part of the model: an x* of elsewhere that holds another one is evaluated with
its own there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.references import Reference
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of a tensor that are compared at a time.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Around:
    """Frozen parameters and buffers by name, on the replay's device."""

    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def with_some(self, other: Around, names: frozenset[str]) -> Around:
        """With those of `other` in place of its own, of these names alone."""
        return Around(
            {**self.frozen, **{name: tensor for name, tensor in other.frozen.items() if name in names}},
            {**self.buffers, **{name: tensor for name, tensor in other.buffers.items() if name in names}},
        )


def extents_around(snapshot: Snapshot) -> list[Extent]:
    """Where all that lies around the iterate of a record is stored, those of other ranks included."""
    ranks = (extent for buffers in snapshot.rank_buffers.values() for extent in buffers.values())
    return [*snapshot.frozen.values(), *snapshot.buffers.values(), *ranks]


def fresh_around(snapshots: Sequence[Snapshot], places: Sequence[int], there: Sequence[int]) -> list[Extent]:
    """Where all lies that is around some iterates, but for what is around those that are `there`."""
    known = {extent for place in there for extent in extents_around(snapshots[place])}
    return list(dict.fromkeys(e for place in places for e in extents_around(snapshots[place]) if e not in known))


def reference_extents(reference: Reference, last: Snapshot) -> tuple[dict[str, Extent], dict[str, Extent]]:
    """Frozen parameters and buffers of x*: its own, and of those that it lacks the ones of the run's last record."""
    return {**dict(last.frozen), **reference.frozen}, {**dict(last.buffers), **reference.buffers}


def constant_names(trajectory: Trajectory) -> frozenset[str]:
    """The frozen parameters and buffers that the run's first and last record hold with the same bytes."""
    first, last = trajectory.snapshots[0], trajectory.snapshots[-1]
    found = set()
    with ExtentReader() as reader:
        for one, other in ((first.frozen, last.frozen), (first.buffers, last.buffers)):
            found |= {name for name in one if name in other and same_content(reader, one[name], other[name])}
    return frozenset(found)


def same_content(reader: ExtentReader, one: Extent, other: Extent) -> bool:
    """Whether two tensors have the same dtype, shape and bytes; reads no further than the first difference."""
    if one == other:
        return True
    if (one.dtype, one.shape, one.length) != (other.dtype, other.shape, other.length):
        return False
    for start in range(0, one.length, BLOCK):
        length = min(BLOCK, one.length - start)
        if bytes(reader.raw(one, start, length)) != bytes(reader.raw(other, start, length)):
            return False
    return True

"""From the run's files to what a row is replayed from: vectors on the device, small tensors on the host.

The next row is read by a thread while the present one is worked on. An iterate that the next row needs too stays on the
device, and so do references, where they fit (residency.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.torch_tensors import TORCH_DTYPES
from trajcheck.replay.around import Around, extents_around, fresh_around, reference_extents
from trajcheck.replay.plan import Reads
from trajcheck.replay.read_ahead import one_ahead
from trajcheck.replay.reducer import Vector, Widened
from trajcheck.replay.setting import Setting
from trajcheck.replay.vector_reader import Buffers, Loaded, VectorReader
from trajcheck.runs.references import Reference
from trajcheck.runs.snapshot import Snapshot

#: Bytes of a recorded vector up to which it is held in the dtype of the replay too: beside its batches, that is little.
WIDENED = 1 << 22


@dataclass(frozen=True)
class RowData:
    """All that one row is replayed from, beside references: iterates by place, and the recorded gradient, as they were
    recorded; batches and generator states, on the host. `references` are what is around each of them, by number."""

    reads: Reads
    iterates: Mapping[int, Vector]
    recorded: Vector | None
    small: Mapping[Extent, Tensor]
    placed: Mapping[Extent, Tensor]  # frozen parameters and buffers, on the device
    snapshots: Sequence[Snapshot]
    references: Mapping[int, Around]

    def load(self, extent: Extent) -> Tensor:
        """A tensor of the row's samples."""
        return self.placed[extent] if extent in self.placed else self.small[extent]

    def around(self, place: int) -> Around:
        """What is around the iterate of a record, one of `reads.around`."""
        snapshot = self.snapshots[place]
        return Around(*({n: self.placed[e] for n, e in each.items()} for each in (snapshot.frozen, snapshot.buffers)))


@dataclass(frozen=True)
class _Read:
    """What the thread has read of a row: what the row before does not have there already."""

    iterates: Mapping[int, Loaded]
    recorded: Loaded | None
    around: Mapping[Extent, Tensor]
    small: Mapping[Extent, Tensor]


class RowReading:
    """Reads the rows of a setting, in order. A context, which reads the resident references first."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._buffers = Buffers(setting.objective.device)
        self._stack = ExitStack()

    def __enter__(self) -> RowReading:
        self._reader = self._stack.enter_context(VectorReader(self._buffers))
        self._ahead = self._stack.enter_context(VectorReader(self._buffers))
        self._references = [self._reference(number) for number in range(self._setting.residency.references)]
        self._iterates: dict[int, Loaded] = {}
        self._placed: dict[Extent, Tensor] = {}
        self._around = self._references_around()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def extents(self) -> ExtentReader:
        """For whoever looks for what is wrong in a file."""
        return self._reader.reader

    @property
    def resident(self) -> int:
        """So many references, the first ones, stay on the device."""
        return len(self._references)

    def rows(self) -> Generator[RowData, None, None]:
        """The rows; each is there until the next is asked for. Raises StepFileError, naming step and tensor."""
        reads, snapshots = self._setting.reads, self._setting.trajectory.snapshots
        device = self._setting.objective.device
        work = [(each, reads[number - 1].around if number else ()) for number, each in enumerate(reads)]
        with closing(one_ahead(self._read, work, ahead=self._setting.residency.ahead)) as found:
            for number, read in enumerate(found):
                self._iterates.update(read.iterates)
                self._placed.update({extent: tensor.to(device) for extent, tensor in read.around.items()})
                yield RowData(
                    reads[number],
                    {place: loaded.tensors for place, loaded in self._iterates.items()},
                    None if read.recorded is None else read.recorded.tensors,
                    read.small,
                    self._placed,
                    snapshots,
                    self._around,
                )
                following = reads[number + 1 : number + 2]
                self._release(read, following[0] if following else None)

    @contextmanager
    def reference(self, number: int) -> Iterator[Vector]:
        """A reference point on the device; one that is not resident, for as long as the context lasts."""
        if number < self.resident:
            yield self._references[number].tensors
            return
        point = self._reference(number)
        yield point.tensors
        self._buffers.give(point)

    def _read(self, work: tuple[Reads, Sequence[int]]) -> _Read:
        """All that a row needs from the run's files, by the thread; what is around some places is there already."""
        reads, there = work
        reader, snapshots = self._ahead, self._setting.trajectory.snapshots
        snapshot = snapshots[reads.row.place]
        small = {extent: reader.tensor(extent) for extent in self._small(reads)}
        around = {extent: reader.tensor(extent) for extent in fresh_around(snapshots, reads.around, there)}
        return _Read(
            {
                place: self._widened(reader.vector(self._trainable(snapshots[place].parameters), snapshots[place].step))
                for place in reads.fresh
            },
            reader.vector(self._trainable(snapshot.gradients), snapshot.step) if reads.recorded else None,
            around,
            small,
        )

    def _small(self, reads: Reads) -> list[Extent]:
        """Batches and generator states that a row needs."""
        trajectory = self._setting.trajectory
        found: list[Extent] = []
        for place in reads.batches:
            snapshot = trajectory.snapshots[place]
            source = trajectory.batch_source(snapshot)
            assert source is not None
            found += [*source.batch.values(), *snapshot.generators.values()]
        return found

    def _reference(self, number: int) -> Loaded:
        reference = self._setting.references[number]
        return self._widened(self._reader.vector(self._trainable(reference.parameters), reference.step))

    def _widened(self, point: Loaded) -> Loaded:
        """With the same numbers in the dtype of the replay, for a small model that it makes wider: each point is
        evaluated several times."""
        objective = self._setting.objective
        if objective.device.type != "cpu" or objective.copies_points or point.buffer.numel() > WIDENED:
            return point
        wide = Widened(point.tensors)
        for name, tensor in point.tensors.items():
            wanted = objective.dtype_of(name)
            wide.wide[name] = tensor.to(wanted) if torch.promote_types(tensor.dtype, wanted) is wanted else tensor
        return Loaded(wide, point.buffer)

    def _trainable(self, tensors: Mapping[str, Extent]) -> dict[str, Extent]:
        return {name: tensors[name] for name in self._setting.names}

    def _references_around(self) -> dict[int, Around]:
        """What is around each reference, on the device; the same tensor once."""
        setting, device = self._setting, self._setting.objective.device
        last, placed = setting.trajectory.snapshots[-1], dict[Extent, Tensor]()

        def place(extents: Mapping[str, Extent], run: Mapping[str, Extent]) -> dict[str, Tensor]:
            for name, extent in extents.items():
                if extent not in placed:  # a copy in half precision stands for the run's own tensor
                    dtype = TORCH_DTYPES[run[name].dtype if name in run else extent.dtype]
                    placed[extent] = self._reader.tensor(extent).to(device, dtype)
            return {name: placed[extent] for name, extent in extents.items()}

        def around(reference: Reference) -> Around:
            frozen, buffers = reference_extents(reference, last)
            return Around(place(frozen, last.frozen), place(buffers, last.buffers))

        return {number: around(reference) for number, reference in enumerate(setting.references)}

    def _release(self, read: _Read, following: Reads | None) -> None:
        """Give back what the next row does not need."""
        wanted = following.iterates if following else frozenset()
        for place in self._iterates.keys() - wanted:
            self._buffers.give(self._iterates.pop(place))
        snapshots, places = self._setting.trajectory.snapshots, following.around if following else ()
        kept = {extent for place in places for extent in extents_around(snapshots[place])}
        for extent in self._placed.keys() - kept:
            del self._placed[extent]
        if read.recorded is not None:
            self._buffers.give(read.recorded)

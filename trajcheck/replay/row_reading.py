"""From the run's files to what a row is replayed from: vectors on the device, small tensors on the host.

The next row is read by a thread while the present one is worked on. An iterate that the next row needs too stays on the
device, and so do references, where they fit (residency.py).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from torch import Tensor

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.replay.plan import Reads
from trajcheck.replay.read_ahead import one_ahead
from trajcheck.replay.reducer import Vector
from trajcheck.replay.setting import Setting
from trajcheck.replay.vector_reader import Buffers, Loaded, VectorReader


@dataclass(frozen=True)
class RowData:
    """All that one row is replayed from, beside references: iterates by place, and the recorded gradient, as they were
    recorded; frozen parameters; batches, buffers and generator states, on the host."""

    reads: Reads
    iterates: Mapping[int, Vector]
    recorded: Vector | None
    frozen: Vector
    small: Mapping[Extent, Tensor]


@dataclass(frozen=True)
class _Read:
    """What the thread has read of a row: what the row before does not have there already."""

    iterates: Mapping[int, Loaded]
    recorded: Loaded | None
    frozen: Vector | None
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
        self._frozen: Vector = {}
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
        reads = self._setting.reads
        with closing(one_ahead(self._read, reads, ahead=self._setting.residency.ahead)) as found:
            for number, read in enumerate(found):
                self._iterates.update(read.iterates)
                if read.frozen is not None:
                    device = self._setting.objective.device
                    self._frozen = {name: tensor.to(device) for name, tensor in read.frozen.items()}
                yield RowData(
                    reads[number],
                    {place: loaded.tensors for place, loaded in self._iterates.items()},
                    None if read.recorded is None else read.recorded.tensors,
                    self._frozen,
                    read.small,
                )
                following = reads[number + 1 : number + 2]
                self._release(read, following[0].iterates if following else frozenset())

    @contextmanager
    def reference(self, number: int) -> Iterator[Vector]:
        """A reference point on the device; one that is not resident, for as long as the context lasts."""
        if number < self.resident:
            yield self._references[number].tensors
            return
        point = self._reference(number)
        yield point.tensors
        self._buffers.give(point)

    def _read(self, reads: Reads) -> _Read:
        """All that a row needs from the run's files, by the thread."""
        reader, snapshots = self._ahead, self._setting.trajectory.snapshots
        snapshot = snapshots[reads.row.place]
        small = {extent: reader.tensor(extent) for extent in self._small(reads)}
        frozen = {name: reader.tensor(extent) for name, extent in snapshot.frozen.items()} if reads.frozen else None
        return _Read(
            {
                place: reader.vector(self._trainable(snapshots[place].parameters), snapshots[place].step)
                for place in reads.fresh
            },
            reader.vector(self._trainable(snapshot.gradients), snapshot.step) if reads.recorded else None,
            frozen,
            small,
        )

    def _small(self, reads: Reads) -> list[Extent]:
        """Batches, buffers and generator states that a row needs."""
        trajectory = self._setting.trajectory
        found: list[Extent] = []
        for place in reads.batches:
            snapshot = trajectory.snapshots[place]
            source = trajectory.batch_source(snapshot)
            assert source is not None
            found += [*source.batch.values(), *snapshot.buffers.values(), *snapshot.generators.values()]
            found += [extent for buffers in snapshot.rank_buffers.values() for extent in buffers.values()]
        if reads.buffers and reads.row.place not in reads.batches:
            found += trajectory.snapshots[reads.row.place].buffers.values()
        return found

    def _reference(self, number: int) -> Loaded:
        reference = self._setting.references[number]
        return self._reader.vector(self._trainable(reference.parameters), reference.step)

    def _trainable(self, tensors: Mapping[str, Extent]) -> dict[str, Extent]:
        return {name: tensors[name] for name in self._setting.names}

    def _release(self, read: _Read, wanted: frozenset[int]) -> None:
        """Give back what the next row does not need."""
        for place in self._iterates.keys() - wanted:
            self._buffers.give(self._iterates.pop(place))
        if read.recorded is not None:
            self._buffers.give(read.recorded)

"""What scalars were made from, as keys: the same key, the same numbers.

A key stands for the version of trajcheck, the run, the content of every file that a row's scalars depend on (its own
step, its neighbours, the first one, its batch), what the row lacks, the reference, and how losses were replayed. Not
for the words of a `--ref`: `final` of a run that has grown is another point.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trajcheck.files.extents import Extent, Extents
from trajcheck.files.prints import FilePrints
from trajcheck.runs.references import Reference, files_of
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.averages import Average
from trajcheck.scalars.rows import Row
from trajcheck.scalars.saved.encoding import FORMAT, KEY
from trajcheck.version import __version__

#: Raised whenever the same files give other last digits.
ARITHMETIC = 4


@dataclass(frozen=True)
class Identity:
    """The keys of one analysis. `replay` says how losses are replayed, '' without an objective, and `second` how they
    are in the second precision."""

    trajectory: Trajectory
    prints: FilePrints
    replay: str = ""
    second: str = ""

    @cached_property
    def _run(self) -> str:
        trajectory = self.trajectory
        described = ";".join(self.prints.of(path, may_grow=True) for path in trajectory.info.files)
        return repr((FORMAT, ARITHMETIC, __version__, trajectory.id, described, tuple(trajectory.shapes.items())))

    @cached_property
    def _files(self) -> Mapping[int, tuple[str, ...]]:
        """The prints of each step's files."""
        return {step: tuple(map(self.prints.of, files)) for step, files in self.trajectory.files.items()}

    @cached_property
    def _probes(self) -> tuple[str, ...]:
        # those that are drawn are told by what `replay` says of the objective
        return tuple(self.prints.of(probe.path) for probe in self.trajectory.probes if probe.path)

    def row(self, row: Row) -> bytes:
        """A row: what is at hand for its scalars."""
        snapshots = self.trajectory.snapshots
        snapshot = snapshots[row.place]
        places = (row.place, row.place - 1, row.place + 1, row.skip, 0)
        within = (place if place is not None and 0 <= place < len(snapshots) else None for place in places)
        steps = [None if place is None else snapshots[place].step for place in within]
        lacks = (
            row.no_pair,
            row.no_next,
            row.no_gradient,
            row.no_sample,
            row.no_previous_sample,
            row.no_window,
            row.no_evaluation,
        )
        files = [None if step is None else self._files.get(step) for step in steps]
        before = snapshots[row.place - 1] if row.place else snapshot  # whose sample `--sample previous` takes
        batches = self._batch(snapshot), self._batch(before)
        decay = [group.get("weight_decay") for group in self.trajectory.settings.at(row.place).groups]
        around = [self._elsewhere(each) for at in (snapshot, before) for each in (at.frozen, at.buffers)]
        return _digest(self._run, steps, files, lacks, batches, decay, around)

    def _batch(self, snapshot: Snapshot) -> tuple[str, ...] | None:
        source = self.trajectory.batch_source(snapshot)
        return None if source is None else self._files.get(source.step)

    def _elsewhere(self, tensors: Mapping[str, Extent]) -> tuple[str, ...]:
        """The prints of the files that hold frozen parameters, or buffers; rows share them."""
        if isinstance(tensors, Extents):  # all in the file of the step itself
            return ()
        if id(tensors) not in self._around:
            self._around[id(tensors)] = tuple(self.prints.of(path) for path in files_of(tensors))
        return self._around[id(tensors)]

    @cached_property
    def _around(self) -> dict[int, tuple[str, ...]]:
        return {}

    def reference(self, reference: Reference) -> bytes:
        """A reference point."""
        return _digest(reference.key, [self.prints.of(path) for path in reference.files])

    def stored(self, row: bytes, reference: bytes | None) -> bytes:
        """What recorded vectors give on a row, of the step (None) or towards a reference."""
        return _digest("stored", row, reference)

    def replayed(
        self,
        row: bytes,
        sample: str,
        draw: int,
        reference: bytes | None,
        *,
        second: bool = False,
        curvature: tuple[object, ...] = (),
    ) -> bytes:
        """What the replay, or that in the second precision, gives on the `draw`-th sample of a convention; `curvature`:
        how its eigenvalues are found, where it has some."""
        how = self.second if second else self.replay
        return _digest(
            "replayed", how, row, sample, draw, self._probes if sample == "probe" else (), reference, *curvature
        )

    def lagged(self, row: bytes, step: int, lag: int, reference: bytes) -> bytes:
        """The products of a row's step and the one `lag` steps on."""
        place = self.trajectory.index(step + lag)
        partner = None if place is None else (self._files.get(step + lag), self._gradient(place))
        return _digest("lagged", row, lag, partner, reference)

    def averaged(self, row: bytes, sample: str, draw: int, average: Average, place: int, *, second: bool) -> bytes:
        """What the replay, or that in the second precision, gives on a row at an average of the iterates up to it."""
        how = self.second if second else self.replay
        probes = self._probes if sample == "probe" else ()
        of = self._files_of(average, place)
        return _digest("averaged", how, row, sample, draw, probes, average.count, average.decay, of)

    def _files_of(self, average: Average, place: int) -> object:
        """The content of the records that an average is of: of the last ones, or of all up to there."""
        steps = self.trajectory.steps
        if average.count:
            return [(step, self._files.get(step)) for step in steps[average.first(place) : place + 1]]
        return self._up_to[place]

    @cached_property
    def _up_to(self) -> list[bytes]:
        """By place the content of all records up to there."""
        found = [b""]
        for step in self.trajectory.steps:
            found.append(_digest(found[-1], step, self._files.get(step)))
        return found[1:]

    def _gradient(self, place: int) -> bool:
        return bool(self.trajectory.snapshots[place].gradients)

    def of_steps(self, steps: Sequence[int]) -> str:
        """The content of some steps: another machine that sees the same gives the same."""
        return _digest(self._run, steps, [self._files.get(step) for step in steps]).hex()


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=KEY).digest()

"""Frozen parameters and buffers as each step finds them, wherever they are stored.

A step that does not hold one finds it in the step that it names, under the tensor's name or, for all others, under "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import BLOCK, ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot

#: The snapshot of a step, as its files have it; None where the run does not hold it.
Stored = Callable[[int], Snapshot | None]


def frozen_of(snapshot: Snapshot, names: set[str], stored: Stored, before: Mapping[str, Extent]) -> dict[str, Extent]:
    """The frozen parameters `names` as a step finds them; one of which nothing is said as `before` has it. Raises
    StepFileError where one is nowhere."""
    found: dict[str, Extent] = {}
    for name in names:
        extent = snapshot.parameters.get(name)
        step = snapshot.frozen_from.get(name, snapshot.frozen_from.get(""))
        if extent is None and step is not None:
            source = _source(snapshot, step, stored, "frozen parameters")
            extent = source.parameters.get(name)
            if extent is None:
                raise StepFileError(f"{source.path}: frozen parameter {name!r} is missing in step {source.step}.")
        extent = before.get(name) if extent is None else extent
        if extent is None:
            raise StepFileError(f"{snapshot.path}: frozen parameter {name!r} is missing in step {snapshot.step}.")
        found[name] = extent
    return found


def buffers_of_step(snapshot: Snapshot, stored: Stored) -> dict[str, Extent]:
    """The buffers as a step finds them. Raises StepFileError where one is not in the step that it is said to be in."""
    found: dict[str, Extent] = {}
    for name, step in snapshot.buffers_from.items():
        source = _source(snapshot, step, stored, "buffers")
        if name and name not in source.buffers:
            raise StepFileError(f"{source.path}: buffer {name!r} of step {snapshot.step} is missing in step {step}.")
        found.update(
            {name: source.buffers[name]} if name else {n: e for n, e in source.buffers.items() if n not in found}
        )
    return {**found, **snapshot.buffers}


def _source(snapshot: Snapshot, step: int, stored: Stored, what: str) -> Snapshot:
    source = snapshot if step == snapshot.step else stored(step)
    if source is None:
        folder = Path(snapshot.path).parent
        raise StepFileError(f"{snapshot.path}: its {what} are in step {step}, which {folder} does not hold.")
    return source


def with_frozen(info: RunInfo, snapshots: list[Snapshot], also: Iterable[str] = ()) -> list[Snapshot]:
    """The snapshots with their frozen parameters: those that run.json calls so, or that a step leaves to another, and
    `also` others, which some steps train.

    One of which a step says nothing is that of the last step that held it: a resumed run may have frozen other values.
    """
    by_step = {snapshot.step: snapshot for snapshot in snapshots}
    names = {*info.frozen, *also}
    for snapshot in snapshots:
        for name, step in snapshot.frozen_from.items():
            if step == snapshot.step or info.parameters:
                continue
            source = _source(snapshot, step, by_step.get, "frozen parameters")
            names |= {name} if name else set(source.parameters) - set(snapshot.parameters)
    if not names:
        return snapshots
    result: list[Snapshot] = []
    before: Mapping[str, Extent] = {n: e for n, e in snapshots[0].parameters.items() if n in names}
    said: Mapping[str, int] | None = None  # what the step before, which held none, said of others
    for snapshot in snapshots:
        holds = any(name in snapshot.parameters for name in names)
        if holds or (snapshot.frozen_from and snapshot.frozen_from != said) or len(before) < len(names):
            found = frozen_of(snapshot, names, by_step.get, before)
            before = before if found == before else found  # one object as long as nothing changes
        said = None if holds else snapshot.frozen_from
        result.append(replace(snapshot, frozen=before))
    return result


def with_buffers(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The snapshots with their buffers. One that a step lacks, and another has, is borrowed from the nearest step
    before it that has it, else from the first."""
    by_step = {snapshot.step: snapshot for snapshot in snapshots}
    first: dict[str, int] = {}  # by name: the first step whose file holds it
    for snapshot in snapshots:
        if not snapshot.buffers.keys() <= first.keys():
            first = {**dict.fromkeys(snapshot.buffers, snapshot.step), **first}
    if not first:
        return snapshots
    result: list[Snapshot] = []
    before: Mapping[str, Extent] = {name: by_step[step].buffers[name] for name, step in first.items()}
    latest = dict(first)  # by name: the last step that had it
    for snapshot in snapshots:
        own = buffers_of_step(snapshot, by_step.get) if snapshot.buffers_from else snapshot.buffers
        borrowed = {} if len(own) == len(first) else {name: latest[name] for name in first if name not in own}
        if borrowed:
            latest |= dict.fromkeys(own, snapshot.step)
            own = {name: own[name] if name in own else before[name] for name in first}
        else:
            latest = dict.fromkeys(first, snapshot.step)
        if not (isinstance(own, dict) and own == before):
            before = own  # one object as long as nothing changes
        result.append(replace(snapshot, buffers=before, borrowed=borrowed))
    return result


def with_doubts(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The snapshots; those at which a later record says that some frozen parameters or buffers are not known with the
    reason."""
    missed = list(dict.fromkeys(each for snapshot in snapshots for each in snapshot.contents.missed))
    if not missed:
        return snapshots
    result = []
    for snapshot in snapshots:
        reasons = [each.sentence for each in missed if each.after < snapshot.step < each.until]
        result.append(replace(snapshot, unsure=reasons[0]) if reasons else snapshot)
    return result


def sampled_steps(snapshots: Sequence[Snapshot]) -> list[int]:
    """The steps whose frozen parameters and buffers are known by signs and samples alone, as none of their job
    read them wholly once more before it ended, or before something wrote them without a sign."""
    last = snapshots[-1]
    ranges = list(last.contents.sampled)
    if last.contents.sure is not None:
        ranges.append((last.contents.sure, last.step + 1))
    steps = (snapshot.step for snapshot in snapshots if snapshot.contents.sure is not None and not snapshot.unsure)
    return [step for step in steps if any(after < step < until for after, until in ranges)]


@dataclass(frozen=True)
class FrozenChange:
    """A frozen parameter holds other values at step `step` than at the record before, for the first time; `times` it
    was stored anew."""

    name: str
    step: int
    times: int


def frozen_changes(snapshots: Iterable[Snapshot]) -> list[FrozenChange]:
    """By name, as far as a parameter is frozen at both steps. What lies in one place is the same; of each that lies in
    several the first two are read, up to where they differ."""
    stored: dict[str, list[tuple[int, Extent]]] = {}
    for snapshot in snapshots:
        for name, extent in snapshot.frozen.items():
            places = stored.setdefault(name, [])
            if not places or (places[-1][1].path, places[-1][1].offset) != (extent.path, extent.offset):
                places.append((snapshot.step, extent))
    found = []
    with ExtentReader() as reader:
        for name, places in sorted(stored.items()):
            if len(places) > 1 and not same_bytes(reader, places[0][1], places[1][1]):
                found.append(FrozenChange(name, places[1][0], len(places) - 1))
    return found


def same_bytes(reader: ExtentReader, one: Extent, other: Extent) -> bool:
    """Whether two tensors have one dtype, one shape and the same bytes; read no further than where they differ."""
    if one == other:
        return True
    if (one.dtype, one.shape, one.length) != (other.dtype, other.shape, other.length):
        return False
    for start in range(0, one.length, BLOCK):
        size = min(BLOCK, one.length - start)
        if bytes(reader.raw(one, start, size)) != bytes(reader.raw(other, start, size)):
            return False
    return True

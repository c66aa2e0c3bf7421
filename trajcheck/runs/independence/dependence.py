"""On the samples of which of the run's steps a reference point depends.

x_t - x* holds the step's own gradient where x* does, and then noise alone has a cosine above 0. That x* is free of it
is said only where it is known: of the run's first iterate, and of another run that shares no iterate with this one.
Where a file comes from, nobody knows: an average of this run's iterates, a merge or a rounded copy of its end is a file
like any other. Content can show what it is, and never that it is none of them: a point that the gradients lead to, and
one that was made of them, are told apart by nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.independence.nearness import Nearness, equal_points, steps_of
from trajcheck.runs.independence.shared_batches import same_batches
from trajcheck.runs.trajectory import Trajectory


@dataclass(frozen=True)
class Dependence:
    """x* holds all that the optimizer makes of the gradients of steps before `whole`, and nothing of those from step
    `free` on; of any between them it may hold some. `free` None: of every step it may. `found` says what is known of a
    point that is no iterate of the run, in words.

    An iterate x_r is (r, r), an average (first, last), a point of elsewhere (0, 0).
    """

    whole: int = 0
    free: int | None = None
    found: str = ""

    @property
    def known(self) -> bool:
        return self.free is not None


INDEPENDENT = Dependence(0, 0)
UNKNOWN = Dependence(found="where it comes from is not known")


def of_steps(steps: Sequence[int]) -> Dependence:
    """Of an iterate of the run, or of an average of several."""
    return Dependence(min(steps), max(steps))


def of_point(point: Mapping[str, Extent], trajectory: Trajectory) -> tuple[tuple[int, ...], Dependence]:
    """Of a file: the step whose iterate it is, if any, and what is known of it."""
    with ExtentReader() as reader:
        steps, rounded = steps_of(reader, point, trajectory)
        if steps:
            found = f"it is a rounded copy of the iterate of step {steps[-1]}" if rounded else ""
            return () if rounded else (steps[-1],), Dependence(steps[0], steps[-1], found)
        near = Nearness(reader, trajectory).nearer_than_init(point)
    if near is None:
        return (), UNKNOWN
    found = (
        f"it is nearer to the iterate of step {near} than x_0 is, as an average or a merge of this run's iterates is"
    )
    return (), Dependence(found=found)


def of_run(
    point: Mapping[str, Extent], steps: Sequence[int], other: Trajectory, trajectory: Trajectory
) -> tuple[tuple[int, ...], Dependence]:
    """Of a point of another run, the iterate or the average of iterates of some of its steps.

    Two runs may share iterates: one went on from the other, from a copy in low precision, or from the middle of it.
    Then x* holds the shared steps as an iterate does, if the two took other batches otherwise; whether they did is
    looked up in the batches that both recorded. A run that began at an average of this run's iterates, or came nearer
    to them than to its own beginning, may depend on every step.
    """
    with ExtentReader() as reader:
        own, rounded = steps_of(reader, point, trajectory)
        if own and not rounded:
            return (own[-1],), of_steps(own)
        if own:
            return (), Dependence(own[0], own[-1], f"it is a rounded copy of the iterate of step {own[-1]}")
        meeting = _meeting(reader, other, trajectory)
        same = same_batches(reader, other, trajectory, None if meeting is None else (meeting.last, meeting.shift))
        if meeting is None:
            return (), _apart(reader, point, other, trajectory, same)
    last, here = meeting.last, [step + meeting.shift for step in steps]
    shared = f"its run shares the iterate of step {last} with this one"
    if max(here) <= last:
        return (), Dependence(min(here), max(here), "its run shares its iterates with this one")
    if last == trajectory.steps[0]:
        shared = "its run began where this one did"
    if same is None:
        return (), Dependence(found=f"{shared}, and whether it took other batches is not known")
    if same:
        return (), Dependence(found=f"{shared}, and took its batch of step {same[0]}")
    return (), Dependence(min(last, *here), last, "" if last == trajectory.steps[0] else shared)


def _apart(
    reader: ExtentReader,
    point: Mapping[str, Extent],
    other: Trajectory,
    trajectory: Trajectory,
    same: tuple[int, ...] | None,
) -> Dependence:
    """Of a point of a run that shares no recorded iterate with this one.

    Two runs that begin apart, on other batches, may end at one minimum, nearer to one another than to where they
    began: a run that went there by its optimizer's steps alone is independent. Whether it did, a Recorder knows.
    """
    if same:
        return Dependence(found=f"its run took this run's batch of step {same[0]}")
    ours, beginning = Nearness(reader, trajectory), other.snapshots[0].parameters
    if (near := ours.nearer_than_init(beginning, MARGIN)) is not None:
        return Dependence(
            found=f"its run began nearer to the iterate of step {near} than x_0 is, as a run does that goes on from an "
            "average of this run's iterates"
        )
    if not (doubt := _may_have_jumped(other)) or (near := ours.nearer_than(point, beginning)) is None:
        return INDEPENDENT
    return Dependence(
        found=f"it is nearer to this run's iterate of step {near} than to its own run's beginning, as the end of a run "
        f"to the same minimum is, and that of one that took weights over from this one; {doubt}"
    )


def _may_have_jumped(run: Trajectory) -> str:
    """Why a run may have come to its points otherwise than by its optimizer's steps; '' where a Recorder saw none."""
    if jumps := [snapshot.unseen.last for snapshot in run.snapshots if snapshot.unseen is not None]:
        return f"something else than its optimizer changed its run's parameters, last before step {max(jumps)}"
    if "trajcheck" not in run.info.versions:
        return "by which steps its run came there is not recorded"
    return ""


#: Of distances to an iterate, that of another run's beginning and that of x_0, below which the two are not two draws of
#: one distribution: weights that have decayed are as far from any beginning.
MARGIN = 0.95


@dataclass(frozen=True)
class _Meeting:
    """Two runs share iterates up to step `last` of this one, which is step `last - shift` of the other."""

    last: int
    shift: int


def _meeting(reader: ExtentReader, other: Trajectory, trajectory: Trajectory) -> _Meeting | None:
    """Where one run begins with an iterate of the other, or with a rounded copy of one; and up to where they then go
    together."""
    here, _ = steps_of(reader, other.snapshots[0].parameters, trajectory)
    if here:
        shift = here[-1] - other.steps[0]
    else:
        there, _ = steps_of(reader, trajectory.snapshots[0].parameters, other)
        if not there:
            return None
        here, shift = trajectory.steps[:1], trajectory.steps[0] - there[-1]
    last = here[-1]
    common = [step for step in trajectory.steps if step > last and other.index(step - shift) is not None]
    low, high = 0, len(common)  # up to common[low - 1] they go together, at common[high] they do not
    while low < high:
        middle = (low + high) // 2
        ours = trajectory.snapshots[trajectory.steps.index(common[middle])]
        theirs = other.snapshots[other.steps.index(common[middle] - shift)]
        if equal_points(reader, ours.parameters, theirs.parameters, trajectory.shapes):
            low = middle + 1
        else:
            high = middle
    return _Meeting(common[low - 1] if low else last, shift)

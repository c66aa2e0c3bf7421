"""What of a replay is not as the run was: in which modes it was, and buffers that the run does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.objective.objective import Objective
from trajcheck.readable import some_of
from trajcheck.replay.around import constant_names, same_content
from trajcheck.replay.plan import FIXED
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory


def modes_of_steps(trajectory: Trajectory, objective: Objective) -> dict[str, int]:
    """In which modes the steps were replayed, in words, and how many in each; empty where none was recorded and the
    objective's model came in training."""
    if all(each.modes is None for each in trajectory.snapshots) and not objective.put_in_training:
        return {}
    return dict(Counter(objective.mode_in_words(each.modes) for each in trajectory.snapshots))


def buffer_doubts(
    trajectory: Trajectory, objective: Objective, references: Sequence[Reference], samples: Iterable[str]
) -> list[str]:
    """Which buffers, of those that the loss may read, are not those of their step or reference, and whose they are."""
    snapshots, found = trajectory.snapshots, []
    read: set[str] = set()
    for modes in {repr(each.modes): each.modes for each in snapshots}.values():
        read |= objective.buffers_read(modes, snapshots[0].buffers)
    if lacking := sorted(read - snapshots[0].buffers.keys() - objective.makes):
        found.append(
            f"the run holds no buffer {some_of(lacking)}: losses were replayed with what the objective makes there"
        )
    borrowing = [each for each in snapshots if read & each.borrowed.keys()]
    if borrowing:
        first = borrowing[0]
        names = sorted(read & first.borrowed.keys())
        found.append(
            f"{len(borrowing)} steps, the first of them step {first.step}, hold no buffer {some_of(names)}: that of "
            f"step {first.borrowed[names[0]]} was taken"
        )
    foreign = [reference for reference in references if reference.record is None]
    if foreign and (read or snapshots[0].frozen):
        found += _of_references(trajectory, foreign, read, any(name in FIXED for name in samples))
    return found


def _of_references(trajectory: Trajectory, foreign: Sequence[Reference], read: set[str], fixed: bool) -> list[str]:
    constant, last, found = constant_names(trajectory), trajectory.snapshots[-1], []
    with ExtentReader() as reader:
        for reference in foreign:
            of_run = {**dict(last.frozen), **{n: e for n, e in last.buffers.items() if n in read}}
            own = {**reference.frozen, **reference.buffers}
            missing = sorted(name for name in of_run if name not in own and name not in constant)
            if missing and fixed:
                found.append(
                    f"reference {reference.spec} holds no {some_of(missing)}, which the run changes: on probe and full "
                    f"samples it was evaluated with that of step {last.step}"
                )
            other = [n for n in of_run if n in constant and n in own and not same_content(reader, own[n], of_run[n])]
            if other:
                found.append(
                    f"reference {reference.spec} holds another {some_of(sorted(other))} than the run, which never "
                    "changes it: it was evaluated with its own"
                )
    return found

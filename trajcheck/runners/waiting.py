"""Tasks that wait for a worker, kept by group."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from trajcheck.runners.outcomes import Task

PATIENCE = 64  # tasks that a worker takes of one group before it looks for a group that nobody works on


@dataclass
class Stay:
    """The group that a worker is with, and how many of its tasks it has taken."""

    group: str | None = None
    taken: int = 0


class Waiting:
    """Places of `tasks`, handed out so that a worker stays with a group (it keeps that run open) until the group is
    done or its patience is over, and then goes to the group with the fewest workers, the first of them in the order
    of the tasks; a group that was left comes last in that order."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._groups: dict[str, deque[int]] = {}
        self._workers: Counter[str] = Counter()
        self._group_of = [str(task.get("group", "")) for task in tasks]
        for place, group in enumerate(self._group_of):
            self._groups.setdefault(group, deque()).append(place)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def take(self, stay: Stay) -> int:
        """The place of the next task for the worker whose stay this is; one must be waiting."""
        if stay.group not in self._groups or stay.taken >= PATIENCE:
            self._move(stay)
        assert stay.group is not None
        places = self._groups[stay.group]
        place = places.popleft()
        if not places:
            del self._groups[stay.group]
        stay.taken += 1
        return place

    def put_back(self, place: int) -> None:
        """A task that was taken and not begun: the next of its group."""
        self._groups.setdefault(self._group_of[place], deque()).appendleft(place)

    def leave(self, stay: Stay) -> None:
        """The worker is with no group any more."""
        if stay.group is not None:
            self._workers[stay.group] -= 1
        stay.group, stay.taken = None, 0

    def _move(self, stay: Stay) -> None:
        left = stay.group
        self.leave(stay)
        if left in self._groups:
            self._groups[left] = self._groups.pop(left)
        stay.group = min(self._groups, key=self._workers.__getitem__)
        self._workers[stay.group] += 1

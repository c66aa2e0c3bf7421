"""The plan that a schedule becomes when the size of a record, the disk and the run's id are known.

Step numbers are absolute and pairs begin at even steps, so that a resumed job goes on with the same plan.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import Protocol

from trajcheck.readable import size_text
from trajcheck.recording.schedule.schedules import Budget, Schedule

DEFAULT_BYTES = 20 * 10**9
DEFAULT_SHARE_OF_DISK = 0.1
LOGARITHMIC_PART = 0.01  # of the run
LOGARITHMIC_SHARE = 0.2  # of the pairs, at most


@dataclass(frozen=True)
class Situation:
    """What a plan depends on; `existing`: bytes by step that the run has already."""

    record_bytes: int
    free_bytes: int
    existing: Mapping[int, int]
    start: int
    total_steps: int | None
    seed: str


class RecordingPlan(Protocol):
    @property
    def records(self) -> int | None:
        """How many steps are scheduled from the start of the job on; None where that is not known."""

    def wants(self, step: int) -> bool: ...

    def captured(self, step: int, size: int) -> None:
        """A record of about this size is on its way."""

    def written(self, step: int, size: int) -> None:
        """It has turned out to have this size; called from the writer's thread."""

    def needs(self, step: int, others: Iterable[int]) -> None:
        """A record refers to others, which must stay as long as it does."""

    def deletable(self) -> list[int]:
        """Steps to delete now, to make room for the next ones."""

    def describe(self) -> str: ...


def make_plan(schedule: Schedule | Budget, situation: Situation) -> RecordingPlan:
    if not isinstance(schedule, Budget):
        return SchedulePlan(schedule, situation)
    limit = schedule.bytes
    if limit is None:
        disk = situation.free_bytes + sum(situation.existing.values())
        limit = min(DEFAULT_BYTES, int(DEFAULT_SHARE_OF_DISK * disk))
    total = schedule.total_steps or situation.total_steps
    if total is None:
        return ThinningPlan(limit, situation)
    return FixedPlan(limit, total, situation)


class SchedulePlan:
    """What an explicit schedule asks for."""

    def __init__(self, schedule: Schedule, situation: Situation) -> None:
        self.schedule, self._situation = schedule, situation

    def wants(self, step: int) -> bool:
        return bool(self.schedule.wants(step))

    def captured(self, step: int, size: int) -> None:
        pass

    def written(self, step: int, size: int) -> None:
        pass

    def needs(self, step: int, others: Iterable[int]) -> None:
        pass

    def deletable(self) -> list[int]:
        return []

    @cached_property
    def records(self) -> int | None:
        if (total := self._situation.total_steps) is None:
            return None
        return sum(self.wants(step) for step in range(self._situation.start, total))

    @property
    def bytes(self) -> int | None:
        """Bytes that the rest of the run will need, where its length is known."""
        return None if self.records is None else (self.records + 1) * self._situation.record_bytes

    def describe(self) -> str:
        in_all = "" if self.bytes is None else f", {size_text(self.bytes)} in all"
        return f"{self.schedule!r}, {size_text(self._situation.record_bytes)} a record{in_all}"


class FixedPlan:
    """The default plan of a run of known length: every step if all fit, else pairs chosen beforehand."""

    def __init__(self, limit: int, total: int, situation: Situation) -> None:
        self._limit, self._size = limit, situation.record_bytes
        records = limit // max(self._size, 1) - 1  # one is the final iterate
        self._every = total <= records
        steps = range(total) if self._every else spread_pairs(total, max(records // 2, 1), situation.seed)
        self._count = len(steps)
        self._steps = array("q", () if self._every else steps)
        self._total, self._start = total, situation.start

    @property
    def records(self) -> int | None:
        if self._every:
            return max(self._total - self._start, 0)
        return len(self._steps) - bisect_left(self._steps, self._start)

    def wants(self, step: int) -> bool:
        if step == self._start:
            return True
        if self._every:
            return step < self._total
        place = bisect_left(self._steps, step)
        return place < len(self._steps) and self._steps[place] == step

    def captured(self, step: int, size: int) -> None:
        pass

    def written(self, step: int, size: int) -> None:
        pass

    def needs(self, step: int, others: Iterable[int]) -> None:
        pass

    def deletable(self) -> list[int]:
        return []

    def describe(self) -> str:
        which = "every step" if self._every else f"{self._count:,} of {self._total:,} steps, in pairs"
        return (
            f"{which}, {size_text(self._size)} a record, {size_text((self._count + 1) * self._size)} in all "
            f"(budget {size_text(self._limit)})"
        )


def spread_pairs(total: int, pairs: int, seed: str) -> list[int]:
    """Steps of `pairs` disjoint pairs (2j, 2j + 1) below `total`: 0 first, then logarithmic up to 1% of the run, then
    one at a random place in each of equally long intervals. Reproducible from the seed."""
    slots = max(total // 2, 1)  # slot j is the pair 2j, 2j + 1
    border = max(int(LOGARITHMIC_PART * slots), 1)
    early = {0}
    wanted = max(int(LOGARITHMIC_SHARE * pairs), 1)
    for i in range(1, wanted):
        early.add(round(border ** (i / wanted)) if border > 1 else 0)
    even = max(min(pairs - len(early), slots - border), 0)
    stream = random.Random(seed)
    edges = [border + (slots - border) * i // even for i in range(even + 1)] if even else []
    late = [stream.randrange(low, high) for low, high in pairwise(edges)]
    chosen = sorted(early | set(late))
    return [step for slot in chosen for step in (2 * slot, 2 * slot + 1) if step < total]


class ThinningPlan:
    """The default plan of a run of unknown length: every step at first, thinned as the run grows.

    At level l the run is divided into intervals of 2^l pairs, and one pair of each is kept, at random: that of one of
    the two intervals of level l - 1 that it consists of. So the pairs of a level are among those of the level before,
    and every step knows whether it belongs to them. The pairs that begin at 0 and at powers of two (if they
    would be too many, of 4, 16, ...) are kept as well: nobody knows yet of how long a run they will be the first 1%.
    """

    records = None

    def __init__(self, limit: int, situation: Situation) -> None:
        self._limit, self._size, self._seed = limit, situation.record_bytes, situation.seed
        self._sizes: dict[int, int] = dict(situation.existing)
        self._bytes = sum(self._sizes.values())
        self._protected: set[int] = set()
        self._needs: dict[int, frozenset[int]] = {}  # by step: those that its record refers to
        self._lock = Lock()
        self._now = self._start = situation.start
        self._current: tuple[int, int, int] = (-1, -1, -1)  # level, interval, the slot kept of it
        self.level = self._coarser = 0
        affordable = max(limit // max(self._size, 1), 1)
        while situation.start >> self.level > affordable:
            self.level += 1

    def protect(self, steps: Iterable[int]) -> None:
        """Never delete these steps, nor their partners: others refer to them."""
        self._protected.update(step // 2 for step in steps)

    def needs(self, step: int, others: Iterable[int]) -> None:
        self._needs[step] = frozenset(others) - {step}

    def coarsen(self, spacing: float) -> None:
        """From now on, ask for about one pair in so many steps at most, those that a full budget would keep as well."""
        self._coarser = math.ceil(math.log2(spacing / 2)) if spacing > 2 else 0

    def wants(self, step: int) -> bool:
        self._now = step
        slot = step // 2
        level = max(self.level, self._coarser)
        return slot == self._start // 2 or self._on_grid(slot, level) or slot & (slot - 1) == 0

    def captured(self, step: int, size: int) -> None:
        with self._lock:
            self._bytes += size - self._sizes.get(step, 0)
            self._sizes[step] = size

    def written(self, step: int, size: int) -> None:
        with self._lock:
            if step in self._sizes:  # else it is to be deleted already
                self._bytes += size - self._sizes[step]
                self._sizes[step] = size

    def deletable(self) -> list[int]:
        """Steps to delete so that another pair and the final iterate fit; none between the steps of a pair."""
        deleted: list[int] = []
        with self._lock:
            while self._now % 2 and self._bytes + 3 * self._size > self._limit and self._can_thin():
                self.level += 1
                spared = self._spared()
                kept = {s for s in self._sizes if s // 2 in spared or self._on_grid(s // 2, self.level)}
                kept |= self._needed(kept)
                steps = [s for s in self._sizes if s not in kept]
                for step in steps:
                    self._bytes -= self._sizes.pop(step)
                    self._needs.pop(step, None)
                deleted += steps
        return deleted

    def _can_thin(self) -> bool:
        return self._now >> self.level > 2

    def _spared(self) -> set[int]:
        """Pairs that are kept although they are not on the grid."""
        most = max(int(LOGARITHMIC_SHARE * self._limit / (2 * max(self._size, 1))), 1)
        powers = [1 << i for i in range(64) if 2 << i <= self._now]
        sparse = next(powers[::k] for k in (1, 2, 4, 8, 16, 32, 64) if len(powers[::k]) <= most)
        return {0, self._start // 2, *sparse, *self._protected}

    def _needed(self, kept: Iterable[int]) -> set[int]:
        """The steps that kept ones refer to, with their partners, and what those refer to."""
        found: set[int] = set()
        waiting = list(kept)
        while waiting:
            for other in self._needs.get(waiting.pop(), ()):
                pair = {step for step in (other & ~1, other | 1) if step in self._sizes} - found
                found |= pair
                waiting += pair
        return found

    def _on_grid(self, slot: int, level: int) -> bool:
        interval = slot >> level
        if self._current[:2] != (level, interval):
            self._current = (level, interval, self._kept(level, interval))
        return slot == self._current[2]

    def _kept(self, level: int, interval: int) -> int:
        """The slot that is kept of an interval of 2^level slots."""
        while level:
            half = random.Random(f"{self._seed}/{level}/{interval}").getrandbits(1)
            interval = 2 * interval + half
            level -= 1
        return interval

    def describe(self) -> str:
        return (
            f"every step at first, {size_text(self._size)} a record, thinned to pairs as the run grows; at most "
            f"{size_text(self._limit)} in all"
        )

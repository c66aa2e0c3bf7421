"""Timing tasks against one another: in turn, in one run, medians with spread."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: A task does its work and returns nothing that is kept; or the seconds it measured itself.
Task = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


@dataclass(frozen=True)
class Times:
    """Seconds of each task, by name, in the order of the rounds."""

    seconds: Mapping[str, Sequence[float]]

    def of(self, name: str) -> Spread:
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Of the rounds' ratios: what slows the machine for a while slows both."""
        return Spread.of([a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True)])


def in_turn(tasks: Mapping[str, Task], rounds: int, warm: int = 1) -> Times:
    """Every task once a round, `rounds` times, after `warm` rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(warm + rounds):
        for name, task in tasks.items():
            gc.collect()
            start = time.perf_counter()
            own = task()
            taken = own if isinstance(own, float) else time.perf_counter() - start
            if number >= warm:
                seconds[name].append(taken)
    return Times(seconds)


def peak_memory(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Peak resident MB of `python arguments...` as a process of its own, and what it printed."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True); "
        "sys.stdout.buffer.write(done.stdout); "
        "print('\\n%d' % resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=None if environment is None else dict(environment),
    )
    printed, _, peak = done.stdout.rstrip().rpartition("\n")
    return int(peak) / (1024 if sys.platform != "darwin" else 1024**2), printed

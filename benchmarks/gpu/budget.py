"""Checks and measurements within some minutes: what raises costs its own row; what there is no time for is named."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from math import inf

from benchmarks.table import Row
from benchmarks.timing import Task, Times, in_turn

FAILED, NO_TIME = "raised: ", "not measured: the minutes are over"


class Budget:
    """`minutes` from now on; `rounds`: False measures everything once, cold."""

    def __init__(self, minutes: float, rounds: bool) -> None:
        self._end = time.monotonic() + 60 * minutes
        self._rounds = rounds
        self.rows: list[Row] = []

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def take(self, what: str, work: Callable[[], list[Row]]) -> None:
        """The rows of a piece of work, said as soon as they are there."""
        if self.left <= 0:
            found = [Row(what, inf, note=NO_TIME)]
        else:
            try:
                found = work()
            except Exception as error:  # the next check may hold all the same
                traceback.print_exc()
                found = [Row(what, inf, target=0.0, note=f"{FAILED}{type(error).__name__}: {error}")]
        for row in found:
            print(f"{row.what}: {row.measured}{' missed' if row.met is False else ''}", flush=True)
        self.rows += found

    def in_turn(self, tasks: Mapping[str, Task], share: float = 0.15, most: int = 5) -> Times:
        """Tasks one after the other after a round to warm up, for as many rounds, one at least, as fit into a share of
        the time that is left."""
        if not self._rounds:
            return in_turn(tasks, 1, warm=0)
        began, left = time.monotonic(), self.left
        first = in_turn(tasks, 1, warm=1)
        a_round = (time.monotonic() - began) / 2
        more = min(most - 1, int((share * left - 2 * a_round) / max(a_round, 1e-6)))
        if more < 1:
            return first
        rest = in_turn(tasks, more, warm=0)
        return Times({name: [*first.seconds[name], *rest.seconds[name]] for name in tasks})

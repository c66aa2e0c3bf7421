"""How often a task is given to a worker that dies of it, or beside it."""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.runners.outcomes import Lost

ATTEMPTS = 3


def lost(deaths: Sequence[str]) -> Lost:
    """`deaths`: how each worker ended, as the end of "worker ..."."""
    if len(set(deaths)) == 1:
        return Lost(f"worker {deaths[0]} three times")
    return Lost("worker " + ", then ".join(deaths))

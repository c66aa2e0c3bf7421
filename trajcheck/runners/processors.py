"""How many processors there are, and each worker's share of them."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_processors(workers: int) -> int:
    return max(1, usable_processors() // workers)


def threads_variable(share: int) -> str:
    """OMP_NUM_THREADS for a worker: its share, or less where the user says so."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return str(min(share, int(given))) if given.isdigit() and int(given) else str(share)

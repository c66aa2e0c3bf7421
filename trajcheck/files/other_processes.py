"""Whether another process of this machine still runs."""

from __future__ import annotations

import os
from pathlib import Path


def is_gone(process: int) -> bool:
    """Whether a process has ended: it is not there, or is there only until its parent looks (Linux), as those are whose
    parent was killed in a container that nobody tidies. A process that cannot be asked runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("Z", "X")

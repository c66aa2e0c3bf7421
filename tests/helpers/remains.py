"""Names of what other processes leave behind, and the lease of another recorder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trajcheck.files.other_processes import here, started

#: Of no process: above the largest number that Linux gives.
DEAD = 2**22 + 1
ELSEWHERE = "0123456789ab"


def temporary_of(process: int, name: str, place: str | None = None) -> str:
    """What a process calls a file that it writes; `place`: on another machine, or in another container."""
    return f".{name}.{here() if place is None else place}-{process:x}-{os.urandom(8).hex()}.tmp"


def lease_of(path: Path, process: int, place: str | None = None, **said: Any) -> Path:
    """A lease that a process of some place has."""
    known = {
        "token": os.urandom(16).hex(),
        "host": "node7",
        "process": process,
        "place": here() if place is None else place,
        "began": started(process) if place is None else "",
        "since": "2026-01-02 03:04:05",
        "path": os.path.realpath(path),
    }
    path.write_text(json.dumps({**known, **said}))
    return path

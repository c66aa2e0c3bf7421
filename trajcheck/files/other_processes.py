"""Which process this is, in a way that other machines and containers understand, and whether another one still runs."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from functools import cache
from pathlib import Path

#: Hexadecimal digits of `here()`.
DIGITS = 12


@cache
def here() -> str:
    """Where the numbers of processes mean what they mean here: this boot of this machine and this container, as some
    hexadecimal digits. Two containers of one machine have equal numbers for different processes.

    Where the system does not say, no two processes are known to be in one place."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        known = f"{boot} {os.stat('/proc/self/ns/pid').st_ino} {platform.node()}"
    except OSError:
        known = f"{platform.node()} {uuid.getnode()}" if platform.system() == "Darwin" else uuid.uuid4().hex
    return hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


def started(process: int) -> str:
    """When a process of this place began, as the system counts (Linux); "" where that is not known. Its number may be
    given to another one when it has ended."""
    return _stat(process, 19)


def is_gone(process: int, began: str = "") -> bool:
    """Whether a process of this place has ended: it is not there, or is there only until its parent looks (Linux), as
    those are whose parent was killed in a container that nobody tidies; or, where it is known when it `began`, another
    one has its number. A process that cannot be asked runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    if _stat(process, 0) in ("Z", "X"):
        return True
    now = started(process) if began else ""
    return bool(now) and now != began


def _stat(process: int, place: int) -> str:
    """One of the fields after the name in /proc/N/stat; "" where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[place]
    except (OSError, IndexError):
        return ""

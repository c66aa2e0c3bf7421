"""What a process that was killed has left behind: which files are trajcheck's own, and of nobody who lives.

The name of a temporary file bears a mark: the place (a boot of a machine, a container) and the number of the process
that writes it, and 16 random digits, so that nobody can tell the name beforehand. A file without such a mark is never
ours. One with it is a leftover when its process, of this very place, is gone; of another place, when nothing was
written to it for a day. Who asks sees to it that the folder is one of its own output, and no run but its own.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time

from trajcheck.files.other_processes import DIGITS, here, is_gone

TEMPORARY = ".tmp"
#: What the names of folders begin with in which a process works, and which it removes.
WORK = "work"
#: Seconds without a write after which a file of another place is nobody's any more.
SILENT = 24 * 3600.0
#: Bytes of what a temporary file is to be called that are kept in its name.
_KEPT = 100

_NAME = re.compile(
    rf"\.(.+)\.([0-9a-f]{{{DIGITS}}})-([0-9a-f]{{1,16}})-[0-9a-f]{{16}}{re.escape(TEMPORARY)}", re.DOTALL
)


def temporary_name(name: str) -> str:
    """What a file that is to be called `name` is called while this process writes it; another one each time."""
    kept = os.fsdecode(os.fsencode(name)[:_KEPT])
    return f".{kept}.{here()}-{os.getpid():x}-{secrets.token_hex(8)}{TEMPORARY}"


def meant_name(name: str) -> str | None:
    """What a temporary file of some process of trajcheck was to be called; None of any other name."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]


def is_leftover(folder: int, name: str, silent: float = SILENT, now: float | None = None) -> bool:
    """Whether an entry of a folder, given by its descriptor, is a temporary file, or folder, of this user's, of a
    process that is gone. `now`: the time by the clock of the file system."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    try:
        found = os.lstat(name, dir_fd=folder)
    except OSError:
        return False
    kind = stat.S_ISDIR if match[1] == WORK else stat.S_ISREG
    if not kind(found.st_mode) or found.st_uid != os.geteuid():
        return False
    if match[2] == here():
        return is_gone(int(match[3], 16))
    return (time.time() if now is None else now) - found.st_mtime > silent

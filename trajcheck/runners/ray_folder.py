"""The temporary folder of a Ray that is started here: removed at the end, or by the next one if the end was a kill.

Ray opens the folder that it is given to all users of the machine, with what tasks need and say in it. So it is given
one inside of a closed one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "trajcheck-ray-"
_LOCK = "lock"  # held by the process that made the folder, as long as it lives
_YOUNG = 3600.0  # seconds in which a folder is left alone: its lock may not be held yet
_INNER = "r"  # Ray's own
_LONGEST = 16  # of the parent's path: a socket's has 107 characters at most, 66 of them Ray's and 25 these folders'


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """For Ray; nobody but this user gets into the one that holds it."""
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST:
        parent = "/tmp"
    _remove_abandoned(Path(parent))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with open(folder / _LOCK, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / _INNER).mkdir()
            yield folder / _INNER
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Folders of this user's, of processes that are no more."""
    for folder in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG:
                continue
            with open(folder / _LOCK, "r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)

"""One batch at a time in an output folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trajcheck.errors import OutputError
from trajcheck.files.other_processes import is_gone

LOCK = ".batch.lock"

#: Seconds without a sign of life after which the owner on another machine counts as dead, where the file system knows
#: no locks.
SILENT = 6 * 3600.0

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class HeldError(Exception):
    """Another batch is at work; the message says which."""


@contextmanager
def only_batch(out: Path) -> Iterator[None]:
    """Hold the output folder while the context lasts.

    The lock is the operating system's, so that it ends with its owner, however that ends; the file names the owner's
    host and pid. On a file system without locks the name counts, until its owner is gone: a process of this host that
    is not there, or no sign of life for six hours (`sign_of_life`). Raises HeldError, OutputError.
    """
    path = out / LOCK
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}. Choose another folder with --out.") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldError(_words(path, _owner(path))) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise OutputError(f"{path}: cannot be locked: {error.strerror}.") from error
            owner = _owner(path)
            if owner and _alive(path, owner):
                raise HeldError(_words(path, owner)) from None
        mine = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, (json.dumps(mine) + "\n").encode(), 0)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error
        yield
        with suppress(OSError):
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def sign_of_life(out: Path) -> None:
    """Say to batches of other machines that this one goes on."""
    with suppress(OSError):
        os.utime(out / LOCK)


def _owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text())
        return {"host": str(owner["host"]), "pid": int(owner["pid"]), "since": str(owner["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _alive(path: Path, owner: dict[str, Any]) -> bool:
    if owner["host"] != platform.node():
        return time.time() - path.stat().st_mtime < SILENT
    return owner["pid"] != os.getpid() and not is_gone(owner["pid"])


def _words(path: Path, owner: dict[str, Any]) -> str:
    if not owner:
        return f"{path.parent}: another batch is at work"
    return (
        f"{path.parent}: another batch is at work (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    )

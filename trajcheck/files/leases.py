"""A folder, or what is done in it, that one process has to itself, on whatever machine it is: a file that names it.

The file appears with all that it says (a link to a whole one) or not at all, and its time is that of the holder's last
sign of life, set anew every few seconds by a thread. Locks of the system are not asked: on network file systems they
may hold on one machine alone. A holder is dead when its process, of this very place (other_processes.py), is gone, or
when it gave no sign for `SILENT` seconds by the clock of the file system; one with a sign of the future is watched for
one of today. Then the file is taken over. Whoever was
taken for dead, as a process that was stopped, finds another's file and is `lost`.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajcheck.files.folders import OpenFolder
from trajcheck.files.other_processes import here, is_gone, started
from trajcheck.readable import time_text

#: Seconds between two signs of life, and without one after which a holder of another place counts as dead.
BEAT, SILENT = 10.0, 90.0
#: So many beats is a sign of life waited for that is to replace one of the future.
LATE = 2.5
#: Seconds for which a file that says nothing is watched: it may be on its way where there are no links.
UNSAID = 2.0
#: Bytes of such a file at the most.
_MOST = 10_000
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as its file says. `age`: seconds since the last sign of life."""

    token: str
    host: str
    process: int
    place: str
    began: str
    since: str
    path: str
    age: float

    @property
    def which(self) -> tuple[str, int, str]:
        """The one process of all machines that it is."""
        return self.place, self.process, self.began

    @property
    def words(self) -> str:
        ahead = f", whose last sign of life is {time_text(-self.age)} ahead of this clock" if self.age < -SILENT else ""
        return f"process {self.process} on {self.host}, since {self.since}{ahead}"


class HeldError(Exception):
    """Another process holds it; `holder` is None where its file does not say who."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder.words if holder else "another process")
        self.holder = holder


class Lease:
    """Held from its making (`take`) to `release`; its thread ends with either, or with the process."""

    def __init__(self, folder: OpenFolder, name: str, token: str, descriptor: int, took_over: Holder | None) -> None:
        self._folder, self._name, self.token, self._descriptor = folder, name, token, descriptor
        self.took_over = took_over
        self._process, self._own, self._heart = os.getpid(), os.fstat(descriptor), Heart(descriptor)

    @property
    def lost(self) -> bool:
        """Whether the file is another's by now, or is gone."""
        try:
            found = os.lstat(self._name, dir_fd=self._folder.descriptor)
        except FileNotFoundError:
            return True
        except OSError:  # a file system that is away for a while
            return False
        return not os.path.samestat(found, self._own)

    def release(self) -> None:
        """Remove the file, if it is still this one's; a forked child's has it no more."""
        if not self._heart.beats:
            return
        self._heart.stop()
        _mine.discard(self.token)
        if os.getpid() == self._process and not self.lost:
            self._folder.remove(self._name, quietly=True)
        os.close(self._descriptor)
        self._folder.close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Heart:
    """Gives an open file a new time every `BEAT` seconds, in a thread of its own, until it is stopped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._process, self._ended = descriptor, os.getpid(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="trajcheck-heart", daemon=True)
        self._thread.start()

    @property
    def beats(self) -> bool:
        return not self._ended.is_set()

    def stop(self) -> None:
        """Returns when the descriptor is not used any more; a forked child has no thread to wait for."""
        self._ended.set()
        if os.getpid() == self._process:
            self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                os.utime(self._descriptor)


#: The tokens of the leases of this process.
_mine: set[str] = set()


def take(
    path: Path, name: str, *, patience: float = 0.0, wait_for_silence: Callable[[Holder], object] | None = None
) -> Lease:
    """Have what the file `name` in a folder stands for. A holder that lives is waited for so many seconds.

    One of another place that gave a sign of life not long ago may be dead all the same: with `wait_for_silence`, which
    is told of it, it is watched until it gives the next one or is silent for long enough. Raises HeldError; OSError
    where the folder cannot be written, or something else lies there.
    """
    folder = OpenFolder.at(path)
    try:
        return _Taking(folder, name, patience, wait_for_silence).take()
    except BaseException:
        folder.close()
        raise


def holder_of(path: Path, name: str) -> Holder | None:
    """Who holds it now; None where nobody does who lives. Raises OSError where the folder cannot be read."""
    with OpenFolder.at(path) as folder:
        found = _read(folder, name, time.time())
    return None if found is None or _is_dead(found, folder.path / name) else found


class _Taking:
    """One try to have a lease; the file that is to become it is written beforehand."""

    def __init__(self, folder: OpenFolder, name: str, patience: float, wait: Callable[[Holder], object] | None) -> None:
        self.folder, self.name, self.wait = folder, name, wait
        self.until = time.monotonic() + patience
        self.token = secrets.token_hex(16)
        self.took_over: Holder | None = None

    def take(self) -> Lease:
        with self.folder.staged(self.name) as file:
            file.write([json.dumps(self._said()).encode()])
            self.descriptor = os.dup(file.descriptor)
            _mine.add(self.token)  # before anybody can read it
            try:
                while not self._appears(file.temporary):
                    self._make_way()
                return Lease(self.folder, self.name, self.token, self.descriptor, self.took_over)
            except BaseException:
                _mine.discard(self.token)
                os.close(self.descriptor)
                raise

    def _said(self) -> dict[str, Any]:
        return {
            "token": self.token,
            "host": platform.node(),
            "process": os.getpid(),
            "place": here(),
            "began": started(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "path": os.path.realpath(self.folder.path / self.name),
        }

    def _appears(self, temporary: str) -> bool:
        """Whether the file has its name now; not where there is one of that name."""
        at = self.folder.descriptor
        try:
            os.link(temporary, self.name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._appears_without_links()
        return True

    def _appears_without_links(self) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            made = os.open(self.name, flags, 0o666, dir_fd=self.folder.descriptor)
        except FileExistsError:
            return False
        os.write(made, json.dumps(self._said()).encode())
        os.close(self.descriptor)
        self.descriptor = made
        return True

    def _now(self) -> float:
        """By the clock of the file system."""
        with suppress(OSError):
            os.utime(self.descriptor)
        return os.fstat(self.descriptor).st_mtime

    def _make_way(self) -> None:
        """Return when there is no file any more, or it is that of a dead. Raises HeldError, OSError."""
        watched, told, state = time.monotonic(), False, (-1, -1)
        first: float | None = None
        while (found := self.folder.status(self.name)) is not None:
            if (found.st_ino, found.st_ctime_ns) != state:  # another file, or something was done to it
                watched, state = time.monotonic(), (found.st_ino, found.st_ctime_ns)
            if not stat.S_ISREG(found.st_mode) or (found.st_nlink > 1 and time.monotonic() - watched > UNSAID):
                raise OSError(
                    errno.EEXIST,
                    "is a link, or no file, and not what trajcheck writes there; remove it",
                    str(self.folder.path / self.name),
                )
            holder = _read(self.folder, self.name, self._now())
            if holder is None:  # not whole yet, or damaged
                if found.st_nlink == 1 and time.monotonic() - watched > UNSAID:
                    return self._remove(None)
            elif _is_dead(holder, self.folder.path / self.name):
                return self._remove(holder)
            elif (
                holder.age < -SILENT and holder.place != here()
            ):  # a clock was set back since, or whoever wrote it lied
                if time.monotonic() - watched > LATE * BEAT:
                    return self._remove(holder)
            elif time.monotonic() >= self.until:
                first = found.st_mtime if first is None else first
                if self.wait is None or holder.place == here() or found.st_mtime != first:
                    raise HeldError(holder)
                if not told and holder.age > BEAT / 2:
                    self.wait(holder)
                    told = True
            time.sleep(0.02 if time.monotonic() < self.until else min(0.5, BEAT / 20))

    def _remove(self, dead: Holder | None) -> None:
        """Take a dead one's file away. Another one may do the same, and have its own there by now: that is put back."""
        aside = f"{self.name}.{self.token}"
        with suppress(FileNotFoundError):
            self.folder.move(self.name, self.folder, aside)
            moved = _read(self.folder, aside, 0.0)
            if moved is not None and (dead is None or moved.token != dead.token) and moved.token not in _mine:
                at = self.folder.descriptor
                with suppress(OSError):
                    os.link(aside, self.name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            elif dead is not None:
                self.took_over = dead
            self.folder.remove(aside, quietly=True)


def _read(folder: OpenFolder, name: str, now: float) -> Holder | None:
    """What the file says; None where there is none, or it says nothing."""
    try:
        said = json.loads(folder.read(name, _MOST))
        found = folder.status(name)
        age = now - found.st_mtime if found is not None else 0.0
        words = {key: str(said[key])[:4000] for key in ("token", "host", "place", "began", "since", "path")}
        return Holder(process=int(said["process"]), age=age, **words)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _is_dead(holder: Holder, path: Path) -> bool:
    if holder.place != here():
        return holder.age > SILENT
    if holder.process == os.getpid():
        return holder.token not in _mine
    return is_gone(holder.process, holder.began) or _is_copy(holder, path)


def _is_copy(holder: Holder, path: Path) -> bool:
    """Whether the folder was copied with the file, whose holder is at work where it came from."""
    if os.path.realpath(path) == holder.path:
        return False
    try:
        return not os.path.samefile(path, holder.path)
    except (OSError, ValueError):
        return False

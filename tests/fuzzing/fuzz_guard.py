"""What no input may do to a reader: crash it, hang it, fill the memory, unpickle, or reach outside its folder."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from trajcheck.errors import TrajcheckError
from trajcheck.files.leftovers import meant_name

#: Seconds of processor time, and bytes above what was there and what the input itself takes.
PATIENCE, MEMORY = 10.0, 64e6

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Audit events: where their arguments hold paths, and the descriptors of the folders that those are in.
_CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir"), ((0, 1),)),
    **dict.fromkeys(("os.rename", "os.link"), ((0, 2), (1, 3))),
    **dict.fromkeys(("os.mkdir", "os.chmod"), ((0, 2),)),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, 0),),
}
_FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "socket.connect")


class _Watch:
    """What the process does to files, by Python's audit events, while there is a folder to stay in."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments}"[:300])
        elif event == "open":
            path, _, flags = arguments
            if flags & _WRITING:
                self._touched(event, path, -1)
        for path, descriptor in _CHANGES.get(event, ()):
            self._touched(event, arguments[path], arguments[descriptor] if descriptor else -1)

    def _touched(self, event: str, path: Any, descriptor: int) -> None:
        if isinstance(path, int):  # an open file
            return
        if event == "open" and meant_name(os.fsdecode(path)) is not None:  # in a folder that the event does not name
            return
        below = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else ""
        where = os.path.abspath(os.path.join(below, os.fsdecode(path)))
        if not f"{where}/".startswith(f"{self.folder}/") and where != "/dev/null":
            self.seen.append(f"{event} {where}")


@cache
def _watch() -> _Watch:
    """Python never takes such a hook away again: only of a process that needs one."""
    return _Watch()


class _TooLong(BaseException):
    pass


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fault(read: Callable[[bytes, Path], object], data: bytes, *, memory: bool = True) -> str | None:
    """What went wrong when `read` was given `data` and a new folder; None where it was read or refused.

    `memory` measures it, which takes several times as long.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(os.path.realpath(name)) / "inside"
        folder.mkdir()
        watch, bytecode = _watch(), sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # which is done whenever something is imported
        watch.folder, watch.seen = str(folder), []
        if memory:
            tracemalloc.start()
        began = time.process_time()
        found = None
        try:
            with _patience(PATIENCE), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(data, folder)
        except TrajcheckError as error:
            if not str(error).strip() or len(str(error)) > 20_000:
                found = f"a message of {len(str(error))} characters"
        except _TooLong:
            found = f"took longer than {PATIENCE:g} s"
        except Exception:
            found = traceback.format_exc(limit=-6)
        finally:
            watch.folder = None
            sys.dont_write_bytecode = bytecode
            peak = tracemalloc.get_traced_memory()[1] if memory else 0
            if memory:
                tracemalloc.stop()
        if peak > MEMORY + 40 * len(data):
            found = f"took {peak / 1e6:.0f} MB for {len(data):,} bytes"
        if watch.seen:
            found = f"did what no reader may: {watch.seen[:3]}"
        if (seconds := time.process_time() - began) > PATIENCE:
            found = found or f"took {seconds:.1f} s"
        strange = [path for path in folder.parent.iterdir() if path != folder]
        strange += [path for path in Path().iterdir() if meant_name(path.name) is not None]
        if outside := [path.name for path in strange]:
            found = f"left {outside[:3]} outside its folder"
        return found

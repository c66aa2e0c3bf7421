"""A worker process as its parent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Pipe
from typing import Any

from trajcheck.runners.messages import decode
from trajcheck.runners.outcomes import Outcome
from trajcheck.runners.worker import HELD_SIGNALS

# The parent's main module is not imported again, as multiprocessing's spawn would: a script needs no guard.
_CODE = "import sys; sys.path[:] = {path!r}; from trajcheck.runners.worker import work; work({descriptor}, {parent})"


class EndedError(Exception):
    """The worker's process is no more; the message says how it ended, as the end of "worker ..."."""


class WorkerProcess:
    """One fresh process, to which tasks are sent one at a time. Its first outcome tells that it has started. To be made
    in a thread that lives as long, after `hold_signals`. OSError where there is no process to be had."""

    def __init__(self, function: str, environment: Mapping[str, str]) -> None:
        self.connection, theirs = Pipe()
        code = _CODE.format(path=sys.path, descriptor=theirs.fileno(), parent=os.getpid())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment},
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.send(function)

    def send(self, message: Any) -> None:
        """A worker that has ended shows that when it is listened to."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(json.dumps(message).encode())

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def receive(self) -> Outcome:
        """What it sent, to be called when something came or it has ended. Raises EndedError when nothing will come."""
        try:
            if self.connection.poll():
                return decode(self.connection.recv_bytes())
        except (EOFError, OSError):
            pass
        self.kill()
        code = self.reap()
        if code >= 0:
            raise EndedError(f"ended with exit code {code}")
        raise EndedError(f"was killed by signal {-code}" + (" (out of memory?)" if -code == signal.SIGKILL else ""))

    def kill(self) -> None:
        self._process.kill()

    def reap(self) -> int:
        """The exit code of a killed worker, minus the signal that ended it; what is left of the worker is freed."""
        self.connection.close()
        return self._process.wait()


def hold_signals() -> None:
    """For the thread that starts workers: they do not see an interrupt before they can ignore it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)

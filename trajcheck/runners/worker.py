"""What a worker process does: it reads tasks from its parent, calls the function, sends what came of it.

It ends when its parent does: by a signal of the kernel where there is one (Linux), and by the end of the connection,
for which a thread waits, so that a worker in the middle of a task notices too. Ctrl-C is the parent's affair.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from trajcheck.runners.calls import find_function
from trajcheck.runners.messages import call_encoded, encode
from trajcheck.runners.outcomes import Done, failed
from trajcheck.runners.own_process import settle

HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # blocked in the thread that starts a worker, which inherits that
_PR_SET_PDEATHSIG = 1


def work(descriptor: int, parent: int) -> None:
    """The whole life of a worker; `descriptor` is its end of the connection, `parent` the process that started it.

    The first message is the function's name, answered by Done(None), or by a failure where it cannot be imported; the
    others are tasks as JSON, each answered by its encoded outcome."""
    _end_with(parent)
    settle()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    inbox: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    try:
        function = find_function(inbox.get())
    except (Exception, SystemExit) as error:
        _say(connection, encode(failed(error)))
        return
    _say(connection, encode(Done(None)))
    while True:
        _say(connection, call_encoded(function, inbox.get()))


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _listen(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    try:
        while True:
            inbox.put(json.loads(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(1)


def _say(connection: Connection, message: bytes) -> None:
    try:
        connection.send_bytes(message)
    except OSError:  # nobody listens any more
        os._exit(1)

"""Signals that end a call: what is unfinished is cleared away on the way out, as at an error."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """While the context lasts, SIGTERM and SIGHUP raise Terminated in the main thread, once; one that is ignored, as
    nohup has it, stays so. Compiled code may put an exception of its own in the place of that, or none: whatever leaves
    the context after a signal is Terminated."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Terminated] = []

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the end must not be interrupted
        came.append(Terminated(number))
        raise came[0]

    before = {number: signal.getsignal(number) for number in _ENDING}
    before = {number: handler for number, handler in before.items() if handler is signal.SIG_DFL}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    except BaseException as error:
        if came and error is not came[0]:
            raise came[0] from error
        raise
    finally:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
    if came:
        raise came[0]

"""How a batch is told to end: a signal, or its time is up. What was finished is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """The batch is to end now."""


class TimeUp(Stopped):
    """The batch has had its time."""


class Signalled(Stopped):
    """SIGINT, SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopping(timeout: float | None) -> Iterator[Callable[[], None]]:
    """While the context lasts, SIGINT, SIGTERM and SIGHUP raise Signalled in the main thread, and after `timeout`
    seconds TimeUp is raised there; a signal that is ignored, as nohup has it, stays so. In another thread nothing is
    changed, and there is no timeout.

    Compiled code may put an exception of its own in the place of these, or none. So any exception that leaves the
    context after a signal becomes what the signal raised, and the function that the context gives raises that again, to
    be called from time to time."""
    asked: list[Stopped] = []

    def check() -> None:
        if asked:
            raise asked[0]

    if threading.current_thread() is not threading.main_thread():
        yield check
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # once is enough: the end must not be interrupted
        asked.append(TimeUp() if number == signal.SIGALRM else Signalled(number))
        check()

    heard = [
        each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, stop) for number in (*heard, signal.SIGALRM)}
    if timeout is not None:
        signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield check
    except Exception as error:
        if asked:
            raise asked[0] from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)

"""A source of ranges of files: asked again where an answer fails, never believed where it does not fit.

What may mend itself is tried again, with longer and longer pauses: a lost connection, a server's own error (5xx), too
many requests (429), an answer that ends early. What does not is an error at once, naming the file: another size than
the listing said, content that changed between two requests, more bytes than were asked for.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from trajcheck.errors import RunError

#: Requests at once, all threads together.
AT_ONCE = 16
#: How often an answer is asked for, and seconds of the first pause; each pause is twice the one before.
TRIES, PAUSE, LONGEST_PAUSE = 6, 0.5, 20.0

T = TypeVar("T")
A = TypeVar("A")


class AgainError(Exception):
    """An answer that may be better the next time. `pause`: seconds for which the server asks."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


class UnreachableError(RunError):
    """A server that does not answer as it should: no fault of any step, which is therefore never left out for it."""


class Source(ABC):
    """Where the files of one tree come from. One that has answered none of TRIES is taken for gone: what else is wanted
    is asked for once, until an answer comes."""

    def __init__(self) -> None:
        self._gone = False

    @abstractmethod
    def once(self, key: str, shown: str, size: int, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of a file of `size` bytes, which it has. Raises AgainError, RunError."""

    def range(self, key: str, shown: str, size: int, start: int, length: int) -> bytes:
        """As `once`, which is tried again. Raises RunError."""

        def ask() -> bytes:
            data = self.once(key, shown, size, start, length)
            if len(data) < length:
                raise AgainError(f"the answer ended {length - len(data):,} bytes early")
            return data

        try:
            found = tried(shown, ask, 1 if self._gone else None)
        except UnreachableError:
            self._gone = True
            raise
        self._gone = False
        return found


def tried(shown: str, ask: Callable[[], T], tries: int | None = None) -> T:
    """What `ask` gives, which may raise AgainError. Raises UnreachableError after so many `tries`, by
    default TRIES."""
    pause, tries = PAUSE, tries or TRIES
    for left in reversed(range(tries)):
        try:
            return ask()
        except AgainError as error:
            if not left:
                how_often = f", {tries} times" if tries > 1 else ""
                raise UnreachableError(
                    f"{shown}: cannot be read: {error}{how_often}. Is the network there, and the server? The same "
                    "command goes on where this one ended."
                ) from error
            wait = pause if error.pause is None else error.pause
            time.sleep(min(LONGEST_PAUSE, wait) * random.uniform(0.75, 1.25))
            pause *= 2
    raise AssertionError


def at_once(function: Callable[[A], T], items: Sequence[A]) -> list[T]:
    """function(item) of each, in order, several at once. Raises what the first that fails raises, when all are done."""
    return [function(item) for item in items] if len(items) < 2 else list(_pool().map(function, items))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, "ranges")

"""One thing ahead: the next is fetched by a thread while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_ahead(function: Callable[[T], R], items: Sequence[T], *, ahead: bool = True) -> Generator[R, None, None]:
    """function(item) for each, in order; with `ahead` that of the next item runs in a thread meanwhile.

    What it raises is raised here, when its item's turn comes. The thread ends with the iteration, or when that is
    closed. Where the system has no thread left, everything is done here.
    """
    if not ahead:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(1, "trajcheck-read") as pool:
        try:
            found = pool.submit(function, items[0]) if items else None
        except RuntimeError:  # can't start new thread: nothing of it was begun
            pool.shutdown(cancel_futures=True)
            yield from map(function, items)
            return
        for number in range(len(items)):
            assert found is not None
            result = found.result()
            if number + 1 < len(items):
                found = pool.submit(function, items[number + 1])
            yield result

"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """Stands still but for `now += seconds`."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

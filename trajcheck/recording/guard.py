"""Between the training loop and what is done beside it: failures of the one must not reach the other."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from trajcheck.recording.schedule.time_spent import TimeSpent


class Guard:
    """A context for all work of a Recorder: `with guard: steps.observe(...)`, while it is `active`.

    The time in it is counted as spent inside. An exception goes to `failed`, which ends the recording, and raises if
    that is strict; training goes on after the block otherwise. What is no Exception, as KeyboardInterrupt, passes.
    """

    def __init__(self, spent: TimeSpent, failed: Callable[[Exception], None]) -> None:
        self.active = True
        self.say_first: Callable[[], None] | None = None  # at the first step that is not recorded any more
        self._spent, self._failed = spent, failed
        self._counted: list[bool] = []  # of blocks one within another, where observing runs the model

    def passed_by(self) -> None:
        """A step comes that is not recorded."""
        say, self.say_first = self.say_first, None
        if say is not None:
            say()

    def __enter__(self) -> None:
        self._counted.append(self._spent.enter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._counted.pop():
            self._spent.leave()
        if isinstance(error, Exception):
            self._failed(error)
            return True
        return False

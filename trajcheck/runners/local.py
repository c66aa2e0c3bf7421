"""Work in this process, one task after another, each when its outcome is asked for."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from trajcheck.runners.calls import call, check_function, find_function, plain_tasks
from trajcheck.runners.outcomes import Outcome, Task


class LocalRunner:
    """No workers. `allow` lists modules outside trajcheck whose functions may run."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._allow = tuple(allow)

    def map(self, function: str, tasks: Sequence[Task]) -> Generator[tuple[Task, Outcome], None, None]:
        check_function(function, self._allow)
        plain = plain_tasks(tasks)
        found = find_function(function)
        return ((task, call(found, handed)) for task, handed in zip(tasks, plain, strict=True))

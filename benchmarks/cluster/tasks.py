"""What the nodes are given to do."""

from __future__ import annotations

from trajcheck.runners import Task

THIS = __name__


def nothing(task: Task) -> int:
    """No work at all: what is left is what a task costs."""
    number: int = task["number"]
    return number

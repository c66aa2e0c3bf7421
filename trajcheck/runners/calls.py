"""A function by its name, and a call of it whose end is always an outcome."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

from trajcheck.errors import RunnerError, UsageError
from trajcheck.runners.outcomes import Done, Failed, Task, failed

Function: TypeAlias = Callable[[Task], Any]


def check_function(function: str, allow: Sequence[str] = ()) -> None:
    """UsageError unless `function` is "module:name" of a module below trajcheck, or of one listed in `allow`."""
    module, _, name = function.partition(":")
    if not (module.startswith("trajcheck.") or module in allow) or not name.isidentifier():
        raise UsageError(f"{function!r} cannot run on workers; expected a function of trajcheck, trajcheck.MODULE:NAME")


def find_function(function: str) -> Function:
    """RunnerError where it cannot be imported."""
    module, _, name = function.partition(":")
    try:
        return getattr(import_module(module), name)
    except Exception as error:
        raise RunnerError(f"workers cannot import {function}: {type(error).__name__}: {error}") from error


def plain_tasks(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The tasks as JSON gives them back, so that a function is given the same wherever it runs. TypeError for one that
    JSON cannot hold, or that has no name."""
    plain = []
    for task in tasks:
        if not isinstance(task, Mapping) or not isinstance(task.get("name"), str):
            raise TypeError(f"expected a task, a mapping with the key 'name'; found {task!r:.200}")
        try:
            plain.append(json.loads(json.dumps(dict(task))))
        except (TypeError, ValueError) as error:
            raise TypeError(f"task {task['name']!r} is not plain: {error}; expected what JSON can hold") from error
    return plain


def call(function: Function, task: Task) -> Done | Failed:
    try:
        return Done(function(task))
    except Exception as error:
        return failed(error)

"""What becomes of a task, and what a runner is."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import trajcheck.errors as errors
from trajcheck.errors import TrajcheckError

Task: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """The function returned `value`."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """The function raised. `kind` is the exception's class: one of errors.py, or any other, which is a bug; of a bug,
    `trace` is the traceback and `where` its last line."""

    kind: str
    message: str
    exit_code: int
    where: str = ""
    trace: str = ""

    @property
    def is_bug(self) -> bool:
        return bool(self.trace)

    @property
    def error(self) -> TrajcheckError:
        """The exception to raise: of the class that was raised; a bug is a TrajcheckError, with exit code 1."""
        if not self.is_bug:
            return getattr(errors, self.kind)(self.message)
        return TrajcheckError(f"a bug: {self.kind}: {self.message} ({self.where}); please report it")


@dataclass(frozen=True)
class Lost:
    """No worker lived to return anything; `reason` says what became of them."""

    reason: str


Outcome: TypeAlias = Done | Failed | Lost


class Runner(Protocol):
    """A place where work runs."""

    def map(self, function: str, tasks: Sequence[Task]) -> Generator[tuple[Task, Outcome], None, None]:
        """Each task with its outcome, as they finish. `function` is "package.module:name", a name below `trajcheck.`
        that takes a task and returns bytes or what JSON can hold. Raises UsageError for another function, TypeError for
        a task that is not plain, RunnerError where workers cannot be had."""
        ...


def failed(error: BaseException) -> Failed:
    """What an exception becomes. A subclass made elsewhere counts as the nearest class of errors.py."""
    if isinstance(error, TrajcheckError):
        kind = next(cls.__name__ for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
        return Failed(kind, str(error), error.exit_code)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else "nowhere"
    return Failed(type(error).__name__, str(error), 1, where, "".join(traceback.format_exception(error)))

"""What is said when recording fails: one error for strict recording, one line and one warning else."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from trajcheck.errors import OutputError, RecorderError, TrajcheckError
from trajcheck.readable import plain

Say = Callable[[str], None]


def failure(error: Exception, path: Path, step: int) -> TrajcheckError:
    """What stopped the recording of `path` at `step`, as an error of this library."""
    if isinstance(error, OSError):
        return OutputError(f"{path}: step {step} could not be written: {error}.")
    if isinstance(error, TrajcheckError):
        return error
    return RecorderError(f"step {step}: {type(error).__name__}: {error}")


def brief(error: Exception) -> str:
    return str(error) if isinstance(error, TrajcheckError) else f"{type(error).__name__}: {error}"


def announce(message: str, say: Say, *, stacklevel: int) -> None:
    """Say it, and warn; `stacklevel` as for warnings.warn in the caller."""
    say(message)
    warnings.warn(plain(message), RuntimeWarning, stacklevel=stacklevel + 1)


def to_stderr(line: str) -> None:
    if sys.stderr is not None:  # as in a process without one
        print(f"trajcheck: {plain(line)}", file=sys.stderr)


def to_nobody(line: str) -> None:
    pass

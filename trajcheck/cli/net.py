"""The end of every call: whatever comes out of a command becomes at most one line on stderr, and an exit code."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from trajcheck.cli.printing import ReaderGone, complain, let_go
from trajcheck.errors import BadInputError, OutputError, RunnerError, TrajcheckError

#: As a shell has it of what a signal ended: SIGPIPE and SIGINT.
NOBODY_READS, INTERRUPTED = 128 + 13, 128 + 2
BUG = 1
_PACKAGE = Path(__file__).parents[1]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_NO_THREAD = "can't start new thread"
_NOTHING_LEFT = {errno.ENOMEM, errno.EMFILE, errno.ENFILE}


def exit_code_of(command: Callable[[], Any], *, debug: bool = False) -> int:
    """Run a command. Errors that trajcheck raises on purpose, and what its options say, are printed as they are;
    anything else is a bug: its type, where it came from and how to report it. `debug` shows the traceback of each."""
    try:
        command()
    except typer.Exit as ended:
        return ended.exit_code
    except (ReaderGone, BrokenPipeError) as error:
        if not isinstance(error, ReaderGone) and not _reader_gone():  # of another pipe, as to a worker
            return _told(error, debug)
        let_go(sys.stdout)
        return NOBODY_READS
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        return _told(error, debug)
    return 0


def _told(error: Exception, debug: bool) -> int:
    if debug:
        for line in traceback.format_exc().splitlines():
            complain(line)
    if isinstance(error, TrajcheckError):
        complain(f"trajcheck: error: {error}")
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "show"):  # of typer, whose classes are not to be had
        words = io.StringIO()
        error.show(words)
        for line in words.getvalue().rstrip("\n").split("\n"):
            complain(line)
        return int(getattr(error, "exit_code", 2))
    return _unforeseen(error)


def _unforeseen(error: Exception) -> int:
    """What no part of trajcheck has a word for."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT and not _has_working_folder():
        complain("trajcheck: error: the working folder is not there any more. Go to another one, and call again.")
        return BadInputError.exit_code
    if isinstance(error, MemoryError) or number in _NOTHING_LEFT or _no_memory(error):
        what = "memory ran out" if number in (None, errno.ENOMEM) else f"{error}"
        complain(
            f"trajcheck: error: {what} ({type(error).__name__}, {_where(error)}). Give the process more, or "
            "ask for less: --memory, fewer references, --steps."
        )
        return RunnerError.exit_code
    if number in _NO_ROOM:
        let_go(sys.stdout)
        complain(f"trajcheck: error: {error}")
        return OutputError.exit_code
    complain(
        f"trajcheck: a bug: {type(error).__name__}: {error} ({_where(error)}). Please report it, with what the "
        "same call prints with --debug."
    )
    return BUG


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _reader_gone() -> bool:
    try:
        waiting = select.poll()
        waiting.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def _no_memory(error: Exception) -> bool:
    """Whether it is one of torch's, which are no MemoryError; a library that found no room for itself, or a thread that
    found none for its stack."""
    if isinstance(error, ImportError):
        return "failed to map segment" in f"{error} {error.__cause__}"
    said = str(error)
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in said or said == _NO_THREAD


def _where(error: BaseException) -> str:
    """The innermost place in trajcheck's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else "nowhere"

"""What the commands print: the one place from which anything reaches stdout and stderr.

Names and words in it are anybody's: nothing that acts on a terminal leaves here. A stdout that cannot be written is
told as other tools tell it: whoever reads a pipe may stop (`ReaderGone`), a full disk or a closed descriptor is an
OutputError. What stderr does not take is lost.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from trajcheck.errors import OutputError
from trajcheck.readable import in_lines, plain


class ReaderGone(Exception):
    """Nobody reads what is printed any more."""


def say(text: str) -> None:
    """Print for people: every line is `plain`. Raises OutputError and ReaderGone."""
    _to_stdout(in_lines(text.split("\n")))


def say_data(text: str) -> None:
    """Print for programs, whole: JSON, CSV, a table for a document. Only a terminal is spared what acts on it; half a
    letter, which no encoding has, is shown as its number everywhere. Raises OutputError and ReaderGone."""
    if is_terminal(sys.stdout):
        text = "\n".join(plain(line, max(1, 12 * len(line))) for line in text.split("\n"))
    _to_stdout(text)


def complain(line: object) -> None:
    """One line on stderr."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            _write(sys.stderr, plain(line))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it; a closed stream is none."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def say_report(
    form: str,
    folder: Path,
    summary: Mapping[str, Any],
    table: Callable[[], str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Print a finished report in one of the formats; `table` makes the text for people, `rows`, of a table by its name,
    are what programs get in the place of the headline."""
    from trajcheck.reports.terminal.formats import TABLE, printed

    (say if form == TABLE else say_data)(printed(form, folder, summary, table, rows))
    if form in ("csv", "markdown"):
        for warning in summary["warnings"]:
            complain(f"warning: {warning}")


def _to_stdout(text: str) -> None:
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        _write(sys.stdout, text)
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        let_go(sys.stdout)
        raise OutputError(f"stdout could not be written: {error.strerror}; what was to be printed is lost") from error


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def let_go(stream: TextIO | None) -> None:
    """What is still to be written to a stream that takes nothing is dropped, as Python would try again at its end."""
    if stream is None:
        return
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


def hold_standard_descriptors() -> None:
    """Closed standard streams lead to nothing, so that no file that is opened later takes their place and is written
    over by what somebody prints."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free

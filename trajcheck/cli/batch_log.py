"""The log of a batch: to the terminal, to standard error, to a file that may be rotated meanwhile."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from trajcheck.cli.printing import complain, let_go
from trajcheck.errors import OutputError
from trajcheck.files.folders import open_log
from trajcheck.readable import plain

LOGGER = logging.getLogger("trajcheck.batch")


class JsonLines(logging.Formatter):
    """One object a line: time, level, message, and of a finished run: run, status, report, duration in seconds."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": plain(record.getMessage())}
        return json.dumps(line | record.__dict__.get("batch", {}))


class PlainLines(logging.Formatter):
    """One line a record, whatever names are in it."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


class Screen(logging.StreamHandler[TextIO]):
    """Standard error; what it does not take is lost."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class LogFile(logging.handlers.WatchedFileHandler):
    """The file of --log. Where it cannot be written any more, as on a full disk, standard error is told so once."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")
        self._told = False

    def _open(self) -> TextIO:  # type: ignore[override]
        return open_log(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            let_go(self.stream)  # else closing it would fail again
            complain(f"trajcheck: --log {self.baseFilename}: cannot be written: {sys.exc_info()[1]}")


@contextmanager
def batch_log(file: Path | None, *, as_json: bool, verbose: bool) -> Iterator[None]:
    """While the context lasts, a batch's lines go to `file`, if there is one, and to standard error: all of them where
    `verbose`, or as JSON without a file; else warnings alone. Raises OutputError."""
    screen = Screen()
    lines = as_json and file is None
    screen.setLevel(logging.INFO if verbose or lines else logging.WARNING)
    screen.setFormatter(JsonLines() if lines else PlainLines("trajcheck: %(message)s"))
    handlers: list[logging.Handler] = [screen]
    if file is not None:
        try:
            handlers.append(LogFile(file))
        except OSError as error:
            raise OutputError(f"--log {file}: cannot be written: {error.strerror}.") from error
        lines_of_words = PlainLines("%(asctime)s %(levelname)s %(message)s")
        handlers[-1].setFormatter(JsonLines() if as_json else lines_of_words)
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate

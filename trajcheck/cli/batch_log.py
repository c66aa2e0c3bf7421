"""The log of a batch: to the terminal, to standard error, to a file that may be rotated meanwhile."""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from trajcheck.errors import OutputError

LOGGER = logging.getLogger("trajcheck.batch")


class JsonLines(logging.Formatter):
    """One object a line: time, level, message, and of a finished run: run, status, report, duration in seconds."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | record.__dict__.get("batch", {}))


@contextmanager
def batch_log(file: Path | None, *, as_json: bool, verbose: bool) -> Iterator[None]:
    """While the context lasts, a batch's lines go to `file`, if there is one, and to standard error: all of them where
    `verbose`, or as JSON without a file; else warnings alone. Raises OutputError."""
    screen = logging.StreamHandler()
    lines = as_json and file is None
    screen.setLevel(logging.INFO if verbose or lines else logging.WARNING)
    screen.setFormatter(JsonLines() if lines else logging.Formatter("trajcheck: %(message)s"))
    handlers: list[logging.Handler] = [screen]
    if file is not None:
        try:
            handlers.append(logging.handlers.WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise OutputError(f"--log {file}: cannot be written: {error.strerror}.") from error
        plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        handlers[-1].setFormatter(JsonLines() if as_json else plain)
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

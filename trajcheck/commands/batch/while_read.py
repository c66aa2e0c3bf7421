"""A run that may change while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trajcheck.commands.batch.run_state import input_prints
from trajcheck.errors import RunError
from trajcheck.measuring.options import Options
from trajcheck.scalars.saved import FOLDER


class Reading:
    """What the files of a run, and of its references, were like when it began to be read into the report in `out`."""

    def __init__(self, run: Path, options: Options, out: Path) -> None:
        self.run, self.options, self.out = run, options, out
        self._before = input_prints(run, options)

    def has_changed(self) -> bool:
        """Whether the run is another one by now, if only because it has grown."""
        return input_prints(self.run, self.options) != self._before

    def end(self) -> None:
        """Remove what was saved with the report if one of the files changed meanwhile: nobody knows which of its states
        that was made from. Files that were added change nothing."""
        now = input_prints(self.run, self.options)
        from trajcheck.scalars.saved.store import forget

        if any(now.get(path) != print_ for path, print_ in self._before.items()):
            forget(self.out / FOLDER)


@contextmanager
def reading(run: Path, options: Options, out: Path) -> Iterator[None]:
    """While the context lasts the run is read. Raises RunError in place of OSError."""
    begun = Reading(run, options, out)
    try:
        with vanishing(run):
            yield
    finally:
        begun.end()


@contextmanager
def vanishing(run: Path) -> Iterator[None]:
    """Raise RunError for an OSError: a file or a folder that was there a moment ago."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename or run}: cannot be read: {error.strerror or error}.") from error

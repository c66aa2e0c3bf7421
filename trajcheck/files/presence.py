"""Who else is at work in a folder: files with a sign of life, of which there may be several.

What nobody needs any more is removed from such a folder only by one who is alone in it.
"""

from __future__ import annotations

import os

from trajcheck.files.folders import OpenFolder, StagedFile
from trajcheck.files.leases import SILENT, Heart
from trajcheck.files.leftovers import is_leftover, meant_name

NAME = "at-work"


class Presence:
    """A context: this process is at work in a folder while it lasts."""

    def __init__(self, folder: OpenFolder) -> None:
        self._folder = folder

    def __enter__(self) -> Presence:
        self._file: StagedFile = self._folder.staged(NAME)
        try:
            self._heart = Heart(self._file.descriptor)
        except BaseException:  # a signal
            self._file.discard()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._heart.stop()
        self._file.discard()

    @property
    def alone(self) -> bool:
        """Whether nobody else who lives is at work there. Raises OSError."""
        os.utime(self._file.descriptor)
        now = os.fstat(self._file.descriptor).st_mtime
        others = (name for name in self._folder.names() if meant_name(name) == NAME and name != self._file.temporary)
        return all(is_leftover(self._folder.descriptor, name, SILENT, now) for name in others)

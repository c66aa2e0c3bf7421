"""A recording belongs to the process that made it: what a forked child does is no part of the run.

The thread that writes, and whatever lock it held, did not come along, so nothing of the Recorder may be used there.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Recording(Protocol):
    def forked(self) -> None:
        """This process is a child of the one that records."""


_recordings: weakref.WeakSet[Recording] = weakref.WeakSet()


def belongs_here(recording: Recording) -> None:
    """Have it told, in every child that is forked from now on."""
    _recordings.add(recording)


def _in_child() -> None:
    for recording in list(_recordings):
        recording.forked()
    _recordings.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

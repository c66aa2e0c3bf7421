"""Options that are passed on to a Recorder which is made later: wrong names are refused where they are written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from trajcheck.errors import RecorderError
from trajcheck.recorder import Recorder
from trajcheck.recorder_arguments import one_schedule


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise RecorderError for options that no Recorder takes, or a schedule that it cannot have."""
    known = inspect.signature(Recorder.__init__).parameters.keys() - {"self", "path", "model", "optimizer"}
    if unknown := sorted(options.keys() - known):
        raise RecorderError(f"{name} takes no {', '.join(unknown)}=; it takes {', '.join(sorted(known))}.")
    one_schedule(options.get("schedule"), options.get("every"))

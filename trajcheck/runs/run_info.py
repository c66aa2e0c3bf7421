"""What is known of a run as a whole: its parameters, its optimizer, where it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.runs.user_fields import Plain

#: How a recording ends that nothing stopped.
CLOSED = "closed"


@dataclass(frozen=True)
class Ended:
    """The recording ended before update `step`, in these words."""

    step: int
    reason: str

    @property
    def stopped(self) -> str:
        """What there is to say of it; '' of an ordinary end."""
        return "" if self.reason == CLOSED else f"recording ended at step {self.step}: {self.reason}"


@dataclass(frozen=True)
class RunInfo:
    """Empty fields mean that nobody said, as of a run written by hand. `files` are those that say it; `groups` are the
    optimizer's settings when recording began, from which steps may differ (optimizer_settings.py)."""

    id: str | None = None
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # recorded, trainable; in their order
    frozen: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unrecorded: tuple[str, ...] = ()
    not_stored: tuple[str, ...] = ()  # what no file could hold, in words
    tied: Mapping[str, str] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)  # the model's own, where a master is stored in another
    optimizer: str | None = None
    groups: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)
    group_of: Mapping[str, int] = field(default_factory=dict)  # the number of each parameter's group
    files: tuple[str, ...] = ()
    ended: Ended | None = None  # None: nobody said, as of a job that was killed, or goes on
    thinned: bool = False  # whether records may have been deleted while the run grew
    notes: tuple[str, ...] = ()  # what was found of how it is stored that one may want to know, in words
    user: Mapping[str, Plain] = field(default_factory=dict)  # plain fields of what the Recorder was given as user=

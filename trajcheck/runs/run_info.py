"""What is known of a run as a whole: its parameters, its optimizer, where it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.runs.user_fields import Plain


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
    thinned: bool = False  # whether records may have been deleted while the run grew
    user: Mapping[str, Plain] = field(default_factory=dict)  # plain fields of what the Recorder was given as user=

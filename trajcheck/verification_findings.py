"""What a verification found: run by run, and of all together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class RunVerification:
    """One run. `damage` is what makes it unusable, or not what was recorded; `notes` is what one may want to know."""

    path: Path
    steps: int = 0  # of which all files are there
    files: int = 0  # of steps and probes
    bytes: int = 0
    checked: int = 0  # files of which every tensor has a checksum, and was compared with it
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verification:
    """All runs that were found, in the order of their paths."""

    runs: tuple[RunVerification, ...]

    @property
    def damaged(self) -> bool:
        return any(run.damage for run in self.runs)

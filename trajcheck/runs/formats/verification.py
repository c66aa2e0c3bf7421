"""What reading a run from the first byte to the last shows."""

from __future__ import annotations

from collections.abc import Iterable
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
    told: set[int] = field(default_factory=set)  # steps that damage or notes speak of

    def add_not_finite(self, found: Iterable[tuple[int, str, str | None]]) -> None:
        """Of each file its step, its path and its first tensor that holds NaN or Inf, if any.

        A run may end in NaN or Inf; in the middle of one that goes on, they are damage.
        """
        found = sorted(found, key=lambda each: each[0])
        bad = {step for step, _, tensor in found if tensor is not None}
        last = max((step for step, _, _ in found if step not in bad), default=-1)
        ended = False
        for step, path, tensor in found:
            if tensor is None:
                continue
            if step < last:
                self.damage.append(f"{path}: step {step}, tensor {tensor}: holds NaN or Inf.")
            elif not ended:
                ended = True
                self.notes.append(f"the run ends in NaN or Inf: step {step}, tensor {tensor}")

"""What a replay is made of: whatever its parts have in common, fixed before the first row is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from trajcheck.objective.objective import Objective
from trajcheck.replay.plan import Plan, Reads
from trajcheck.replay.residency import Residency
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory


@dataclass(frozen=True)
class Setting:
    """A run towards references, by an objective that fits it, along a plan; `reads` are those of each row of work."""

    trajectory: Trajectory
    references: Sequence[Reference]
    objective: Objective
    plan: Plan
    reads: Sequence[Reads]
    residency: Residency
    recorded_dtype: torch.dtype | None
    constant: frozenset[str]  # frozen parameters and buffers that the run never changes

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The trainable parameters, in the run's order."""
        return tuple(self.trajectory.shapes)

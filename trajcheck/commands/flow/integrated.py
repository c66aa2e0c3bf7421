"""A gradient flow, solved twice: at the tolerance asked for, and at half of it."""

from __future__ import annotations

from dataclasses import dataclass

from trajcheck.scalars.values import FlowScalars


@dataclass(frozen=True)
class Integrated:
    """What came of an integration: the rows, those that were not reached being empty, and how it went."""

    rows: list[FlowScalars]
    missing: list[str]  # why a row has no flow; '' where it has
    evaluations: int  # gradients of the two integrations
    ended: str = ""  # why it stopped before the last time
    resumed_at: int | None = None  # the first step that was computed anew
    notes: tuple[str, ...] = ()

"""What is known of a run as a whole: its parameters, its optimizer, where it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """Empty fields mean that nobody said, as of a run written by hand. `files` are those that say it."""

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
    decay: Mapping[str, float] = field(default_factory=dict)  # of each parameter that has weight decay
    files: tuple[str, ...] = ()
    thinned: bool = False  # whether records may have been deleted while the run grew

    @property
    def heavy_ball(self) -> bool | None:
        """Whether any parameter group of SGD has momentum; None where the optimizer is unknown or not SGD."""
        if self.optimizer != "SGD" or not self.groups:
            return None
        return any(group.get("momentum") for group in self.groups)

    @property
    def plain_sgd(self) -> bool | None:
        """SGD without momentum, in the descending direction; None where the optimizer or its momentum is unknown."""
        if self.optimizer is None or (self.optimizer == "SGD" and not self.groups):
            return None
        return self.heavy_ball is False and not any(group.get("maximize") for group in self.groups)

    @property
    def weight_decay(self) -> bool:
        return any(group.get("weight_decay") for group in self.groups)

    @property
    def decoupled(self) -> bool:
        """Whether some of the weight decay is decoupled (AdamW): then g + lambda x is no objective's gradient."""
        return any(group.get("weight_decay") and group.get("decoupled") for group in self.groups)

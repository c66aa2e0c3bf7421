"""One step of the run where several optimizers train one model: a step of each, in any order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from trajcheck.recording.model.optimizers import Optimizers


class StepOfAll:
    """Which optimizers have made their part of the step that is being made.

    `inside`: one of them is in its step(); `begun`: some have made theirs, or one is inside; `whole`: all have. A step
    is over when all have made theirs, or else with the next forward, or when one of them comes again: the others then
    made no update, at rate 0, and `lacking` counts how often.
    """

    def __init__(self, optimizers: Optimizers) -> None:
        self._optimizers = optimizers
        self.inside = False
        self.lacking: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """A step is over."""
        self.inside = False
        self._made: list[int] = []
        self._rates: dict[int, float] | None = {}
        self._found_inf: list[torch.Tensor] = []

    @property
    def begun(self) -> bool:
        return self.inside or bool(self._made)

    @property
    def others_made(self) -> bool:
        """Whether another optimizer than the one that is inside has made its part."""
        return bool(self._made)

    @property
    def whole(self) -> bool:
        return len(self._made) == len(self._optimizers.members)

    def repeats(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it comes again, though its part is made."""
        return not self.inside and self._optimizers.place(optimizer) in self._made

    def enters(self, optimizer: torch.optim.Optimizer) -> None:
        self.inside = True
        place = self._optimizers.place(optimizer)
        rates = self._optimizers.rates([place])
        if rates is None or self._rates is None:
            self._rates = None
        else:
            self._rates.update({group: rates[group] for group in self._optimizers.groups_of(place)})

    def leaves(self, optimizer: torch.optim.Optimizer) -> None:
        self.inside = False
        self._made.append(self._optimizers.place(optimizer))
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None:
            self._found_inf.append(found_inf)

    @property
    def rates(self) -> list[float] | None:
        """Of the update: 0 where an optimizer made none; None for optimizers without rates."""
        if self._rates is None:
            return None
        return [self._rates.get(group, 0.0) for group in range(len(self._optimizers.param_groups))]

    @property
    def found_inf(self) -> torch.Tensor | None:
        """Of a fused loss scaler: not zero where an update was skipped."""
        found: Any = None
        for each in self._found_inf:
            found = each if found is None else torch.maximum(found, each.to(found.device))
        return found

    def missing(self) -> str:
        """The optimizers that made no update, in words; '' where all did. Counts them."""
        names = [name for place, name in enumerate(self._optimizers.names) if place not in self._made]
        if not names:
            return ""
        self.lacking.update(names)
        return f"{' and '.join(names)} made no update in this step"

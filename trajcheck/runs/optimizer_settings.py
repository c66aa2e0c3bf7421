"""The settings of an optimizer's parameter groups, as the update of each step used them.

run.json says what they were when recording began; a step that used others says by how much it differs. Momentum is
cycled, weight decay follows schedules, a checkpoint's settings replace those that the optimizer was made with: what
holds of a step follows from the settings of that step alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot

Group = Mapping[str, Any]


@dataclass(frozen=True)
class OptimizerSettings:
    """The class of the optimizer by `name`, and what each of its parameter groups was set to; empty: nobody said."""

    name: str | None = None
    groups: tuple[Group, ...] = ()

    @cached_property
    def heavy_ball(self) -> bool | None:
        """Whether any parameter group of SGD has momentum; None where the optimizer is unknown or not SGD."""
        if self.name != "SGD" or not self.groups:
            return None
        return any(group.get("momentum") for group in self.groups)

    @cached_property
    def plain_sgd(self) -> bool | None:
        """SGD without momentum, in the descending direction; None where the optimizer or its momentum is unknown."""
        if self.name is None or (self.name == "SGD" and not self.groups):
            return None
        return self.heavy_ball is False and not self.ascends

    @cached_property
    def weight_decay(self) -> bool:
        return any(group.get("weight_decay") for group in self.groups)

    @cached_property
    def decoupled(self) -> bool:
        """Whether some of the weight decay is decoupled (AdamW): then g + lambda x is no objective's gradient."""
        return any(group.get("weight_decay") and group.get("decoupled") for group in self.groups)

    @cached_property
    def words(self) -> str:
        """The optimizer, for a report."""
        what = str(self.name)
        if self.heavy_ball:
            what = "SGD with momentum"
        elif self.name == "SGD" and self.weight_decay:
            what = "SGD with weight decay"
        return f"{what} that ascends (maximize=True)" if self.ascends else what

    @cached_property
    def ascends(self) -> bool:
        """Whether the updates of some groups are along their gradients, and not against them."""
        return any(group.get("maximize") for group in self.groups)


class RunSettings:
    """The settings of a run by the place of a record; those that are equal are one object.

    The iterate that closes a run has no update, and counts for nothing that is said of the run.
    """

    def __init__(self, info: RunInfo, snapshots: Sequence[Snapshot]) -> None:
        self._info = info
        self._described = OptimizerSettings(info.optimizer, info.groups)
        known: dict[str, OptimizerSettings] = {}
        self._at = [self._of(snapshot.groups, known) for snapshot in snapshots]
        updates = [at for at, snapshot in zip(self._at, snapshots, strict=True) if snapshot.lr or snapshot.gradients]
        self.used: Sequence[OptimizerSettings] = _distinct(updates or self._at or [self._described])
        self._trained = [snapshot.trained for snapshot in snapshots]
        self._decays: dict[tuple[int, str], Mapping[str, float]] = {}

    def _of(self, differing: Sequence[Group], known: dict[str, OptimizerSettings]) -> OptimizerSettings:
        if not differing:
            return self._described
        key = repr([sorted(group.items()) for group in differing])
        if key not in known:
            described = self._info.groups
            groups = tuple(
                {
                    name: value
                    for name, value in {**(described[i] if i < len(described) else {}), **each}.items()
                    if value is not None
                }
                for i, each in enumerate(differing)
            )
            known[key] = OptimizerSettings(self._info.optimizer, groups)
        return known[key]

    def at(self, place: int) -> OptimizerSettings:
        """Those of the record at a place."""
        return self._at[place]

    def decay_at(self, place: int) -> Mapping[str, float]:
        """The lambda of each parameter that has weight decay, at the record at a place; one object for equal settings.

        g + lambda x is the gradient of what the update follows: under maximize=True torch adds the decay to -g, and
        lambda is less than 0.
        """
        settings, trained = self._at[place], self._trained[place]
        key = id(settings), repr(sorted(trained.items())) if trained else ""
        if key not in self._decays:
            found = {}
            for name, number in {**self._info.group_of, **trained}.items():
                group = settings.groups[number] if number is not None and number < len(settings.groups) else {}
                if group.get("weight_decay"):
                    found[name] = float(group["weight_decay"]) * (-1 if group.get("maximize") else 1)
            self._decays[key] = found
        return self._decays[key]

    @cached_property
    def has_decay(self) -> bool:
        """Whether any parameter has weight decay at any record."""
        return any(self.decay_at(place) for place in range(len(self._at)))

    # -- of all updates that were recorded ----------------------------------------------------------------------------

    @cached_property
    def plain_sgd(self) -> bool | None:
        """Whether all were plain SGD; None where that is not known."""
        found = [each.plain_sgd for each in self.used]
        return False if False in found else None if None in found else True

    @property
    def heavy_ball(self) -> bool | None:
        """Whether any had momentum, of SGD; None where the optimizer is unknown or not SGD."""
        found = [each.heavy_ball for each in self.used]
        return True if True in found else None if None in found else False

    @property
    def ascends(self) -> bool:
        """Whether any went along the gradient."""
        return any(each.ascends for each in self.used)

    @property
    def weight_decay(self) -> bool:
        """Whether any had weight decay."""
        return any(each.weight_decay for each in self.used)

    @property
    def decoupled(self) -> bool:
        """Whether any had weight decay that is decoupled."""
        return any(each.decoupled for each in self.used)


def _distinct(settings: Iterable[OptimizerSettings]) -> list[OptimizerSettings]:
    return list({id(each): each for each in settings}.values())

"""The optimizers that train one model: one step of the run is one step of each of them, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch

from trajcheck.errors import RecorderError
from trajcheck.recording.model.inner_optimizer import inner_optimizer, optimizer_name


class HoldsGroups(Protocol):
    """Anything with parameter groups."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...


class Optimizers:
    """One optimizer, or several that hold no parameter in common; each is the one that makes the steps, inside whatever
    wraps it. Raises RecorderError for what is none, or shares a parameter with another.

    Parameter groups are numbered one optimizer after the other, in the order given.
    """

    def __init__(self, given: Any) -> None:
        found = [inner_optimizer(each) for each in (given if isinstance(given, list | tuple) else [given])]
        self.members = [optimizer for optimizer, _ in found]
        if not self.members:
            raise RecorderError("optimizer: expected a torch.optim.Optimizer, or a list of some, got an empty list.")
        for optimizer in self.members:
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise RecorderError(
                    f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}. Pass the optimizer "
                    "that a wrapper holds (often wrapper.optimizer)."
                )
        self.names = [optimizer_name(optimizer, around) for optimizer, around in found]
        self._groups = [len(optimizer.param_groups) for optimizer in self.members]
        owners: dict[int, str] = {}
        for optimizer, name in zip(self.members, self.names, strict=True):
            for tensor in {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}:
                if owners.setdefault(tensor, name) != name or self.members.count(optimizer) > 1:
                    raise RecorderError(
                        f"optimizer: {owners[tensor]} and {name} hold the same parameters; expected optimizers of "
                        "different ones, each given once."
                    )

    @property
    def name(self) -> str:
        """SGD, or Muon + AdamW."""
        return " + ".join(dict.fromkeys(self.names))

    @property
    def several(self) -> bool:
        return len(self.members) > 1

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.members for group in optimizer.param_groups]

    def owners(self) -> list[tuple[torch.optim.Optimizer, str]]:
        """The optimizer of each group, and its name."""
        named = zip(self.members, self.names, strict=True)
        return [(optimizer, name) for optimizer, name in named for _ in optimizer.param_groups]

    def place(self, optimizer: torch.optim.Optimizer) -> int:
        return next(place for place, member in enumerate(self.members) if member is optimizer)

    def groups_of(self, place: int) -> range:
        """The numbers of the parameter groups of the optimizer at a place."""
        before = sum(len(optimizer.param_groups) for optimizer in self.members[:place])
        return range(before, before + len(self.members[place].param_groups))

    def rates(self, step: int, places: Sequence[int] | None = None) -> list[float] | None:
        """The rate of each group, 0 in those of optimizers that are not at one of `places`; None for an optimizer
        without rates. Raises RecorderError where there are other groups than there were."""
        if (now := [len(optimizer.param_groups) for optimizer in self.members]) != self._groups:
            raise RecorderError(
                f"step {step}: {self.name} has {sum(now)} parameter groups, and had {sum(self._groups)} when recording "
                "began. Make the Recorder after the last add_param_group()."
            )
        places = range(len(self.members)) if places is None else places
        moving = {number for place in places for number in self.groups_of(place)}
        rates = [group.get("lr") if number in moving else 0.0 for number, group in enumerate(self.param_groups)]
        return None if None in rates else [float(cast(float, rate)) for rate in rates]

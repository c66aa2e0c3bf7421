"""The optimizers that train one model: one step of the run is one step of each of them, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

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
        self._known: dict[tuple[int, int], None] = {}
        self._read: dict[int, tuple[torch.Tensor, int, float]] = {}  # rates on a GPU, with their version
        self._asked: list[tuple[dict[str, Any], Any]] = []  # groups and their first parameters, when they were numbered
        self._answer: list[tuple[int, dict[str, Any]]] = []
        self._groups: list[dict[str, Any]] = []
        self._numbers: list[list[int]] = [[] for _ in self.members]  # of the groups of each
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
        """By their numbers; of one that is gone an empty one."""
        self._numbered()
        return self._groups

    def _numbered(self) -> list[tuple[int, dict[str, Any]]]:
        """The place of the optimizer and the group, by number. A number is a group's for good, known by its first
        parameter: groups that are added come last, and of one that is removed there remains its number."""
        if not self._same_groups():
            found = {
                (place, id(group["params"][0]) if group["params"] else -number): group
                for place, optimizer in enumerate(self.members)
                for number, group in enumerate(optimizer.param_groups)
            }
            self._known.update(dict.fromkeys(found))
            self._asked = [(group, _first(group)) for each in self.members for group in each.param_groups]
            self._answer = [(key[0], found.get(key, {"params": []})) for key in self._known]
            self._groups = [group for _, group in self._answer]
            numbers = range(len(self._answer))
            self._numbers = [
                [number for number in numbers if self._answer[number][0] == place] for place in range(len(self.members))
            ]
        return self._answer

    def _same_groups(self) -> bool:
        """Whether the groups and their first parameters are the same objects as when they were numbered."""
        number, known = 0, len(self._asked)
        for optimizer in self.members:
            for group in optimizer.param_groups:
                if number == known:
                    return False
                was, first = self._asked[number]
                if group is not was or _first(group) is not first:
                    return False
                number += 1
        return number == known

    def owners(self) -> list[tuple[torch.optim.Optimizer, str]]:
        """The optimizer of each group, and its name."""
        return [(self.members[place], self.names[place]) for place, _ in self._numbered()]

    def place(self, optimizer: torch.optim.Optimizer) -> int:
        for place, member in enumerate(self.members):
            if member is optimizer:
                return place
        raise ValueError(f"{type(optimizer).__name__} is none of {self.name}")

    def groups_of(self, place: int) -> list[int]:
        """The numbers of the parameter groups of the optimizer at a place."""
        self._numbered()
        return self._numbers[place]

    def rates(self, places: Sequence[int] | None = None) -> list[float] | None:
        """The rate of each group, 0 in those of optimizers that are not at one of `places`, and in one that is gone;
        None for an optimizer without rates."""
        rates = []
        for place, group in self._numbered():
            moves = bool(group["params"]) and (places is None or place in places)
            rates.append(group.get("lr") if moves else 0.0)
        return None if any(rate is None for rate in rates) else [self._number(rate) for rate in rates]

    def _number(self, rate: Any) -> float:
        """Of a rate that is a tensor on a GPU, read again where it was written since: reading waits for the device."""
        if not isinstance(rate, torch.Tensor) or rate.device.type == "cpu":
            return float(rate)
        known = self._read.get(id(rate))
        if known is None or known[0] is not rate or known[1] != rate._version:
            self._read[id(rate)] = known = rate, rate._version, float(rate)
        return known[2]


def _first(group: dict[str, Any]) -> Any:
    """Its first parameter, if it has any."""
    return group["params"][0] if group["params"] else None

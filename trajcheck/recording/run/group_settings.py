"""The settings of an optimizer's parameter groups: as run.json describes them, and where a step used others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trajcheck.files.opening import read_json
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.model.updates_by_hand import UpdatesByHand

#: What schedulers note in a group for themselves; and the rate, which every record holds by itself.
NOT_COMPARED = ("lr", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "optimizer")


def describe_optimizers(optimizers: Optimizers) -> dict[str, Any]:
    """Their name and the settings of each group that JSON can hold; of several, each with the name of its own."""
    groups = describe_groups(optimizers)
    if optimizers.several:
        owners = [name for _, name in optimizers.owners()]
        groups = [{"optimizer": name, **group} for name, group in zip(owners, groups, strict=True)]
    known = not any(isinstance(optimizer, UpdatesByHand) for optimizer in optimizers.members)
    return {"name": optimizers.name if known else None, "groups": groups}


def describe_groups(optimizers: Optimizers) -> list[dict[str, Any]]:
    """The settings of each group, as they are now, that JSON can hold."""
    groups = []
    for group, (optimizer, _) in zip(optimizers.param_groups, optimizers.owners(), strict=True):
        settings = {key: _plain(value) for key, value in group.items() if key != "params"}
        settings = {key: value for key, value in settings.items() if value is not None}
        decoupled = bool(group.get("decoupled_weight_decay")) or isinstance(optimizer, torch.optim.AdamW)
        groups.append({**settings, "decoupled": decoupled})
    return groups


class GroupSettings:
    """What differs, at a step, from the settings that run.json in `folder` describes.

    Schedulers cycle momentum and betas, training loops set the weight decay of every step, and load_state_dict()
    replaces all that the optimizer was made with. A resumed job keeps the description of the first.
    """

    def __init__(self, folder: Path, optimizers: Optimizers) -> None:
        self._optimizers = optimizers
        described = read_json(folder / "run.json").get("optimizer") or {}
        self._described: Sequence[Mapping[str, Any]] = described.get("groups") or []

    def differing(self) -> list[dict[str, Any]] | None:
        """One object a group, of the settings that are others now; a setting that is gone is None. None where all are
        as described."""
        now = describe_groups(self._optimizers)
        described = [*self._described, *({} for _ in range(len(now) - len(self._described)))]
        found = [_changes(before, after) for before, after in zip(described, now, strict=False)]
        return found if any(found) else None


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in {**before, **after} if name not in NOT_COMPARED]
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}


def _plain(value: Any) -> Any:
    """A number, flag, word or short tuple as JSON can hold it; None for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items if all(isinstance(item, int | float) for item in items) else None
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value if isinstance(value, bool | int | float | str) else None

"""One checkpoint of somebody else's archive: its tensors, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.files.extents import Extent


@dataclass(frozen=True)
class Checkpoint:
    """What the files of one step hold; `path` stands for it in messages.

    `tensors` are the model's, by their names in the file: parameters and buffers alike, tied ones as often as they are
    stored; `tied` are second names that are not, {second: first}. `prefix` is what stands before all names and is no
    part of the model. `trained` are the names (as in `tensors`) of those that the optimizer has, where that is known;
    `state` its tensors, "slot/name" by names in the model. `groups` are the settings of the optimizer's groups,
    `group_of` the number of each trained tensor's, and `lr` the rates of the update that follows x_t, one a group,
    where they are known to be those. `loss` is f(x_t; z_t) and nothing else, never a mean since the last log. `notes`
    say what of the files was left out, or understood in a way that one may want to know.
    """

    path: str
    tensors: Mapping[str, Extent]
    prefix: str = ""
    tied: Mapping[str, str] = field(default_factory=dict)
    trained: frozenset[str] | None = None
    state: Mapping[str, Extent] = field(default_factory=dict)
    optimizer: str | None = None
    groups: tuple[Mapping[str, Any], ...] = ()
    group_of: Mapping[str, int] = field(default_factory=dict)
    lr: tuple[float, ...] | None = None
    loss: float | None = None
    epoch: float | None = None
    notes: tuple[str, ...] = ()

"""What an iterate depends on beside the trained parameters: frozen parameters and buffers, stored when they change.

At every record their content is known by a print (bit_prints.py), whatever wrote to them. What has the content that
an earlier record holds is not copied: the record says which one, in `frozen_from` and `buffers_from`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trajcheck.recording.model.bit_prints import bit_prints
from trajcheck.recording.model.recorded_model import RecordedModel, to_host
from trajcheck.recording.model.shards import local

#: The two kinds, by their section in a step file, and the entry of its metadata that names other steps.
KINDS = {"param": "frozen_from", "buffer": "buffers_from"}


@dataclass(frozen=True)
class Captured:
    """Frozen parameters and buffers as they were at one moment, by their names in a step file: a print of each, and
    copies in host memory of those that no record held."""

    prints: Mapping[str, Hashable] = field(default_factory=dict)
    copies: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """The copies of buffers, by their names in the model."""
        named = ((name.partition("/"), copy) for name, copy in self.copies.items())
        return {name: copy for (kind, _, name), copy in named if kind == "buffer"}


class Surroundings:
    """Captures them from a model, and knows which record holds which content."""

    def __init__(self, model: RecordedModel) -> None:
        self._model = model
        self._held: dict[str, tuple[Hashable, int]] = {}  # by name: the content that a step's file holds, and the step
        self._last: dict[str, tuple[Hashable, torch.Tensor]] = {}  # copies that were made for the coming record

    def capture(self, *, buffers: bool = True) -> Captured:
        """As they are now; the frozen parameters alone, where buffers are no longer those of the step."""
        tensors = {name: t for name, t in self._tensors().items() if buffers or not name.startswith("buffer/")}
        prints = bit_prints(tensors)
        copies = {}
        for name, tensor in tensors.items():
            if self._refers(name) and self._held.get(name, (None,))[0] == prints[name]:
                continue
            known = self._last.get(name)
            if known is None or known[0] != prints[name]:
                known = self._last[name] = prints[name], to_host(tensor)
            copies[name] = known[1]
        return Captured(prints, copies)

    def record(self, step: int, captured: Captured) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What the record of a step holds of them, and metadata that say where the others are; from here on later
        records may refer to it."""
        tensors: dict[str, torch.Tensor] = {}
        elsewhere: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        complete = self._held.keys() <= captured.prints.keys()  # else one that is gone must not be found again
        for name, content in captured.prints.items():
            held = self._held.get(name)
            kind, _, own = name.partition("/")
            if held is not None and held[0] == content and held[1] != step and self._refers(name):
                elsewhere[kind][own] = held[1]
            elif name in captured.copies:
                tensors[name] = captured.copies[name]
                self._held[name] = content, step
            else:
                complete = False
        self._last.clear()
        brief = _brief if complete else dict
        return tensors, {KINDS[kind]: brief(places) for kind, places in elsewhere.items() if places}

    def forget(self, steps: Collection[int]) -> None:
        """These records are deleted: what only they hold is stored again."""
        gone = set(steps)
        self._held = {name: held for name, held in self._held.items() if held[1] not in gone}

    def go_on_from(self, holders: Mapping[str, int]) -> None:
        """The run's files hold the present content of these tensors, each in the file of a step."""
        prints = bit_prints({name: tensor for name, tensor in self._tensors().items() if name in holders})
        self._held = {name: (content, holders[name]) for name, content in prints.items()}

    def values(self) -> dict[str, torch.Tensor]:
        """The tensors themselves, not copied, that this rank stores."""
        return self._tensors()

    def _tensors(self) -> dict[str, torch.Tensor]:
        frozen = {f"param/{p.name}": local(p.tensor) for p in self._model.frozen if p.piece is not None}
        return {**frozen, **{f"buffer/{name}": buffer for name, buffer in self._model.buffers.items()}}

    def _refers(self, name: str) -> bool:
        """Whether a record may leave a tensor to another one. Buffers of several ranks are each rank's own, and are in
        every record."""
        return self._model.ranks.count == 1 or name.startswith("param/")


def referred(metadata: Mapping[str, Any]) -> set[int]:
    """The steps that a record with these metadata needs."""
    found: set[int] = set()
    for key in KINDS.values():
        places = metadata.get(key)
        found.update(places.values() if isinstance(places, Mapping) else () if places is None else (places,))
    return found


def _brief(places: Mapping[str, int]) -> int | dict[str, int]:
    """A step for all, or, where they are several, the most frequent one under "" and the others by name."""
    usual = Counter(places.values()).most_common(1)[0][0]
    others = {name: step for name, step in places.items() if step != usual}
    return {"": usual, **others} if others else usual

"""What an iterate depends on beside the trained parameters: frozen parameters and buffers, stored when they change.

Their content is known at every record (known_contents.py), whatever wrote to them. What has the content that an
earlier record holds is not copied: the record says which one, in `frozen_from` and `buffers_from`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trajcheck.recording.model.bit_prints import bit_prints
from trajcheck.recording.model.known_contents import KnownContents, Look
from trajcheck.recording.model.recorded_model import Parameter, RecordedModel, to_host
from trajcheck.recording.model.shards import local
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.runs.snapshot import Contents

#: The two kinds, by their section in a step file, and the entry of its metadata that names other steps.
KINDS = {"param": "frozen_from", "buffer": "buffers_from"}


@dataclass(frozen=True)
class Captured:
    """Frozen parameters and buffers as they were at one moment, by their names in a step file: a print of each, and
    copies in host memory of those that no record held. `look` found them."""

    prints: Mapping[str, Hashable] = field(default_factory=dict)
    copies: Mapping[str, torch.Tensor] = field(default_factory=dict)
    look: Look = field(default_factory=Look)

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """The copies of buffers, by their names in the model."""
        named = ((name.partition("/"), copy) for name, copy in self.copies.items())
        return {name: copy for (kind, _, name), copy in named if kind == "buffer"}


class Surroundings:
    """Captures them from a model, and knows which record holds which content."""

    def __init__(self, model: RecordedModel, spent: TimeSpent, say: Callable[[str], None]) -> None:
        """`say` is told what could not be known in time."""
        self._model = model
        self._contents = KnownContents(spent, say)
        self._several = model.ranks.count > 1
        self._followed: list[Parameter] | None = None  # the frozen parameters that the next are of
        self._frozen: dict[str, torch.Tensor] = {}
        self._held: dict[str, Hashable] = {}  # by name: the content that a step's file holds
        self._at: dict[str, int] = {}  # and which step's
        self._last: dict[str, tuple[Hashable, torch.Tensor]] = {}  # copies that were made for the coming record

    def capture(self, *, buffers: bool = True, wholly: bool = False) -> Captured:
        """As they are now; the frozen parameters alone, where buffers are no longer those of the step. `wholly`: all
        are read, whatever time that takes. So are those that may have to be copied, and of several ranks all, as their
        times differ."""
        tensors = self._tensors()
        look = self._contents.look(tensors, tensors if wholly or self._several else self._not_held())
        prints = look.prints
        if not buffers:
            prints = {name: each for name, each in prints.items() if not name.startswith("buffer/")}
        copies = {}
        for name in prints if self._several else self._not_held(prints):
            if self._refers(name) and self._held.get(name) == prints[name]:
                continue
            last = self._last.get(name)
            if last is None or last[0] != prints[name]:
                last = self._last[name] = prints[name], to_host(tensors[name])
            copies[name] = last[1]
        return Captured(prints, copies, look)

    def _not_held(self, prints: Mapping[str, Hashable] | None = None) -> list[str]:
        """The names of those of which no record holds this content; None: that of the last look."""
        prints = self._contents.prints if prints is None else prints
        if prints == self._held:
            return []
        return [name for name, content in prints.items() if self._held.get(name) != content]

    def record(self, step: int, captured: Captured) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What the record of a step holds of them, and metadata that say where the others are; from here on later
        records may refer to it."""
        tensors: dict[str, torch.Tensor] = {}
        elsewhere: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        complete = self._held.keys() <= captured.prints.keys()  # else one that is gone must not be found again
        for name, content in captured.prints.items():
            kind, _, own = name.partition("/")
            if self._held.get(name) == content and self._at[name] != step and self._refers(name):
                elsewhere[kind][own] = self._at[name]
            elif name in captured.copies:
                tensors[name] = captured.copies[name]
                self._held[name], self._at[name] = content, step
            else:
                complete = False
        self._last.clear()
        brief = _brief if complete else dict
        said = {KINDS[kind]: brief(places) for kind, places in elsewhere.items() if places}
        return tensors, {**said, **self._contents.recorded(step, captured.look)}

    def forget(self, steps: Collection[int]) -> None:
        """These records are deleted: what only they hold is stored again."""
        gone = set(steps)
        self._at = {name: step for name, step in self._at.items() if step not in gone}
        self._held = {name: self._held[name] for name in self._at}

    def go_on_from(self, holders: Mapping[str, int], earlier: Contents) -> None:
        """The run's files hold the present content of these tensors, each in the file of a step; what is known of the
        records of jobs `earlier`."""
        self._contents.earlier = earlier
        prints = bit_prints({name: tensor for name, tensor in self._tensors().items() if name in holders})
        self._held, self._at = dict(prints), dict(holders)

    def values(self) -> dict[str, torch.Tensor]:
        """The tensors themselves, not copied, that this rank stores."""
        return self._tensors()

    def _tensors(self) -> dict[str, torch.Tensor]:
        if self._several or self._followed is not self._model.frozen:
            self._followed = self._model.frozen
            self._frozen = {f"param/{p.name}": local(p.tensor) for p in self._followed if p.piece is not None}
        return {**self._frozen, **{f"buffer/{name}": buffer for name, buffer in self._model.buffers.items()}}

    def _refers(self, name: str) -> bool:
        """Whether a record may leave a tensor to another one. Buffers of several ranks are each rank's own, and are in
        every record."""
        return not self._several or name.startswith("param/")


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

"""Updates that the optimizer did not make: x_t that is not what its last step left.

Three signs are compared, from the end of one step to the beginning of the next `step()`: the version counters of all
parameters, which every change in place raises but one through `.data`; the values of two small tensors, which an edit
of the whole model changes; and, around recorded steps, prints of all content. Values that were written and written back
(SAM's ascent, an average that was evaluated) are no update. Nothing waits for a device but `take()`, at a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trajcheck.recording.model.content_prints import ROUNDING, ContentPrints, Difference, Print
from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.model.shards import local

#: Tensors whose values are compared at every step, the smallest ones, and so many elements of each.
SAMPLED, ELEMENTS = 2, 4096
#: So many tensors are named with a record, and so many findings wait one by one until a record asks for them.
NAMED, WAITING = 3, 512


@dataclass
class Unseen:
    """How many steps began at parameters that something else had changed, the first and the last two of them, and what
    was changed, as far as that is known."""

    times: int = 0
    first: int = -1
    last: int = -1
    last_but_one: int = -1
    names: dict[str, None] = field(default_factory=dict)

    def note(self, step: int, names: Sequence[str]) -> None:
        self.first = step if self.times == 0 else self.first
        self.last_but_one, self.last = self.last, step
        self.times += 1
        self.names.update(dict.fromkeys(names))

    @property
    def metadata(self) -> dict[str, Any]:
        """As every record says it from then on; nothing where there were none."""
        if not self.times:
            return {}
        told = {"times": self.times, "first": self.first, "last": self.last}
        return {"unseen": {**told, "tensors": list(self.names)[:NAMED], "changed": len(self.names)}}


@dataclass
class _Left:
    """How a step left the parameters."""

    versions: list[int]
    places: list[int]  # where in memory they lie: `p.data = ...` raises no version
    sample: list[torch.Tensor]
    print: Print | None


class UnseenUpdates:
    """Of the parameters that are stored, or their masters: what changed them between two steps.

    A step is `arrives()` before `optimizer.step()`, when they are x_t, and `left()` after it. `all` is what was found
    since the recording began, as of the last `take()`.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.follow(parameters)
        self._doubtful = False  # values were written and perhaps written back: from now on contents are compared
        self._found: dict[int, Sequence[str]] = {}
        self._open: list[tuple[int, Difference | torch.Tensor, Sequence[str]]] = []  # until a device is asked
        self._folded: list[tuple[list[int], torch.Tensor]] = []
        self.all = Unseen()
        self._said: int | None = None

    def follow(self, parameters: Sequence[Parameter]) -> None:
        """These parameters from now on."""
        self._sources = {p.name: p.source for p in parameters}
        self.prints = ContentPrints(self._sources)
        filled = {name: tensor for name, tensor in self._sources.items() if local(tensor).numel()}
        self._sampled = dict(sorted(filled.items(), key=lambda item: local(item[1]).numel())[:SAMPLED])
        self._left: _Left | None = None

    def left(self, content: bool) -> None:
        """A step is over; `content`: it or the next one is recorded."""
        sample = [_some(tensor).clone() for tensor in self._sampled.values()]
        self._left = _Left(
            self._versions(), self._places(), sample, self.prints.now() if content or self._doubtful else None
        )

    def found(self, step: int, names: Sequence[str]) -> None:
        """It is known that these were changed before a step, and was said."""
        self._found[step], self._said = names, step

    @property
    def to_say(self) -> Unseen:
        """What was found and not said yet."""
        return Unseen() if self.all.times == 1 and self.all.first == self._said else self.all

    def arrives(self, step: int, content: bool) -> Print | None:
        """The parameters are x_t now. A print of them where `content` asks for it, or one was taken after the last
        step."""
        left, self._left = self._left, None
        now = self.prints.now() if content or (left is not None and left.print is not None) else None
        if left is None:
            return now
        if left.print is not None and now is not None:
            self._ask_later(step, self.prints.differ(left.print, now), [])
            return now
        self._doubtful |= left.places != self._places()
        named = zip(self._sources, left.versions, self._versions(), strict=True)
        self._compare(step, left, [name for name, before, after in named if before != after])
        return now

    def _compare(self, step: int, left: _Left, written: list[str]) -> None:
        """By versions and samples alone."""
        pairs = zip(self._sampled.items(), left.sample, strict=True)
        moved = {name: _moved(before, _some(tensor)) for (name, tensor), before in pairs}
        self._doubtful |= bool(written)
        known = [name for name, flag in moved.items() if flag is True]
        if known or (written and not any(name in self._sampled for name in written)):
            self._found[step] = written or known
            return
        flags = [flag for flag in moved.values() if isinstance(flag, torch.Tensor)]
        if flags:
            flag = flags[0] if len(flags) == 1 else flags[0] | flags[1].to(flags[0].device)
            self._ask_later(step, flag, written or list(moved))

    def _ask_later(self, step: int, found: Difference | torch.Tensor, names: Sequence[str]) -> None:
        self._open.append((step, found, names))
        if len(self._open) > WAITING:
            flags = [each if isinstance(each, torch.Tensor) else each.anywhere for _, each, _ in self._open]
            self._folded.append(([step for step, _, _ in self._open], torch.stack(flags)))
            self._open = []

    def take(self) -> dict[str, Any]:
        """Metadata of the record of x_t: what was found up to there. Waits for the devices that know of it."""
        found, self._found = self._found, {}
        for steps, flags in self._folded:
            found.update({step: [] for step, flag in zip(steps, flags.tolist(), strict=True) if flag})
        for step, each, names in self._open:
            if isinstance(each, Difference):
                names = each.names
            elif not bool(each):
                continue
            if names:
                found[step] = names
        self._open, self._folded = [], []
        for step in sorted(found):
            self.all.note(step, found[step])
        return self.all.metadata

    def moved_before(self, step: int) -> bool:
        """Whether something moved before this step, and not before the one before it."""
        return self.all.last == step and self.all.last_but_one != step - 1

    def _places(self) -> list[int]:
        return [local(tensor).data_ptr() for tensor in self._sources.values()]

    def _versions(self) -> list[int]:
        return [tensor._version for tensor in self._sources.values()]


def _some(tensor: torch.Tensor) -> torch.Tensor:
    flat = local(tensor.detach())
    flat = torch.view_as_real(flat) if flat.is_complex() else flat
    return flat.reshape(-1)[:ELEMENTS]


def _moved(before: torch.Tensor, now: torch.Tensor) -> bool | torch.Tensor:
    """Whether values differ by more than rounding; of a device other than the CPU a tensor that will tell."""
    if before.dtype != now.dtype:
        return True
    if now.device.type != "cpu":
        return _differ(before, now.to(before.device))
    return not torch.equal(before, now) and bool(_differ(before, now))


def _differ(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """The same where the device will know."""
    limit = ROUNDING * torch.finfo(before.dtype).eps * before.abs().max()
    broke = torch.isfinite(before) & ~torch.isfinite(now)
    return ((now - before).abs() > limit).any() | broke.any()

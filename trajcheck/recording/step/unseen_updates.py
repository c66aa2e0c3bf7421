"""Updates that the optimizer did not make: x_t that is not what its last step left.

Three signs are compared, from the end of one step to the beginning of the next `step()`: addresses and versions of all
parameters (places.py); a sample of the values of all (content_samples.py), for what is written through `.data`; and,
around recorded steps, prints of all content. From the first finding on prints are compared at every step, as what has
happened once comes again. So a change of a whole tensor is noticed where it happens, and one of some of its elements
if a version was raised, or they are in the sample of that step. Values that were written and written back (SAM's
ascent, an average that was evaluated) are no update. Nothing waits for a device but `take()`, at a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trajcheck.recording.model.content_prints import ContentPrints, Difference, Print
from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.step.content_samples import ContentSamples, Sample
from trajcheck.recording.step.places import Place, Places, Seen

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

    place: Place
    sample: Sample | None
    print: Print | None


class UnseenUpdates:
    """Of the parameters that are stored, or their masters: what changed them between two steps.

    A step is `arrives()` before `optimizer.step()`, when they are x_t, and `left()` after it. `all` is what was found
    since the recording began, as of the last `take()`.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._doubtful = False  # values were written, perhaps not for the last time: contents are compared from now on
        self._found: dict[int, Sequence[str]] = {}
        self._open: list[tuple[int, Difference, Sequence[str]]] = []  # until a device is asked
        self._folded: list[tuple[list[int], torch.Tensor]] = []
        self.all = Unseen()
        self._said: int | None = None
        self.follow(parameters)

    def follow(self, parameters: Sequence[Parameter]) -> None:
        """These parameters from now on."""
        self._sources = {p.name: p.source for p in parameters}
        self.prints = ContentPrints(self._sources)
        self.places = Places(self._sources.values())
        self._samples: ContentSamples | None = None
        self._looked = self.places.now().addresses
        self._restless = False  # whether steps put the values elsewhere
        self._left: _Left | None = None

    def left(self, content: bool) -> None:
        """A step is over; `content`: it or the next one is recorded."""
        place = self.places.now()
        if self._doubtful:
            self._samples = None
        if content or self._doubtful:
            self._left = _Left(place, None, self.prints.now())
            return
        if self._samples is None:
            self._samples = ContentSamples(self._sources)
            self._samples.look()
        elif self._looked != place.addresses or self._restless:
            self._restless = True
            if self._samples.look():  # of other dtypes or sizes
                self._samples = ContentSamples(self._sources)
                self._samples.look()
        self._looked = place.addresses
        self._left = _Left(place, self._samples.next(), None)

    def found(self, step: int, names: Sequence[str]) -> None:
        """It is known that these were changed before a step, and was said."""
        self._found[step], self._said = names, step

    def before(self, step: int) -> bool | torch.Tensor:
        """Whether something moved before this step, the last that arrived; on a device where it takes one to know."""
        if step in self._found:
            return True
        if self._open and self._open[-1][0] == step:
            return self._open[-1][1].anywhere
        if self._folded and self._folded[-1][0][-1] == step:
            return self._folded[-1][1][-1]
        return False

    @property
    def to_say(self) -> Unseen:
        """What was found and not said yet."""
        return Unseen() if self.all.times == 1 and self.all.first == self._said else self.all

    def arrives(self, step: int, content: bool) -> Seen:
        """The parameters are x_t now: how they are, with a print of them where `content` asks for it, or one was taken
        after the last step."""
        left, self._left = self._left, None
        now = self.prints.now() if content or (left is not None and left.print is not None) else None
        here = Seen(self.places.now(), now)
        if left is None:
            return here
        if left.print is not None and now is not None:
            self._ask_later(step, self.prints.differ(left.print, now), [])
        elif left.sample is not None:
            self._compare(step, left.place, here.place, left.sample)
        return here

    def _compare(self, step: int, left: Place, here: Place, before: Sample) -> None:
        """Without prints."""
        assert self._samples is not None
        if here.addresses != left.addresses:
            self._doubtful = True
            if others := self._samples.look():
                self._found[step] = others
                return
        written: dict[str, int] = {}
        if here.versions != left.versions:
            self._doubtful = True
            counts = zip(self._sources, left.versions, here.versions, strict=True)
            written = {name: now - then for name, then, now in counts if now != then}
        unsure = [name for name in written if name not in self._samples.whole]
        same = self._samples.unchanged(before)
        difference = None if same else self._samples.differ(before, self._samples.again())
        # Written once, the others of its elements have changed; twice, they may be what they were, as what was read is.
        if unsure and len(unsure) == len(written) and max(written.values()) == 1:
            self._found[step] = unsure
        elif difference is not None:
            self._ask_later(step, difference, unsure)
        if self._restless:
            self._samples.look_away()

    def _ask_later(self, step: int, found: Difference, unsure: Sequence[str]) -> None:
        """`unsure`: tensors that were changed too if any was."""
        if found.at_hand:
            self._note(step, found, unsure)
            return
        self._open.append((step, found, unsure))
        if len(self._open) > WAITING:
            flags = [each.anywhere for _, each, _ in self._open]
            self._folded.append(([step for step, _, _ in self._open], torch.stack(flags)))
            self._open = []

    def _note(self, step: int, found: Difference, unsure: Sequence[str]) -> None:
        if names := found.names:
            self._found[step] = [*unsure, *(name for name in names if name not in unsure)]
            self._doubtful = True

    def take(self) -> dict[str, Any]:
        """Metadata of the record of x_t: what was found up to there. Waits for the devices that know of it."""
        for steps, flags in self._folded:
            folded: dict[int, Sequence[str]] = {
                step: [] for step, flag in zip(steps, flags.tolist(), strict=True) if flag
            }
            self._doubtful |= bool(folded)
            self._found.update(folded)
        for step, each, unsure in self._open:
            self._note(step, each, unsure)
        self._open, self._folded = [], []
        found, self._found = self._found, {}
        for step in sorted(found):
            self.all.note(step, found[step])
        return self.all.metadata

    def moved_before(self, step: int) -> bool:
        """Whether something moved before this step, and not before the one before it."""
        return self.all.last == step and self.all.last_but_one != step - 1

"""Which forwards of the model made a loss: their generator states, buffers and modes are its sample's.

In a GAN's step the generator's loss runs through the discriminator too, and adversarial inputs take forwards and
backward passes of their own. So every forward leaves a mark at the nodes of autograd's graph that its outputs came
from, and a loss is of those forwards whose marks its graph has. A mark lies in the node's own metadata and goes with
the graph; nothing here keeps a graph, or an output, alive.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trajcheck.recording.step.compiled_draws import OTHER_DRAWS, draws_otherwise
from trajcheck.recording.step.graph import in_backward, mark_node, marks_in, next_number, numbers_in, outputs_made_since
from trajcheck.recording.step.sample_state import ForwardState, generator_states

#: Why the forward of a loss is not known.
VALUE_ONLY = (
    "its loss was given to observe() without its graph (a number, or detached), and {} forwards of the model came "
    "before, so which of them made it is not known; give observe() the loss that backward() is called on"
)
NOT_IN_GRAPH = "the graph of its loss has none of the {} forwards of the model that came before it since the last step"
NO_FORWARD = "no forward of the model came between its loss and the one before"


@dataclass(eq=False)
class Forward:
    """A forward of the model: the `state` in which it began, and the generators when it ended.

    `first` and `end` are the numbers of the nodes that its thread made in it, `versions` how often each buffer was
    written when it began and when it ended. `told`: somebody said that it begins, and its end is not seen.
    `recomputed`: it began inside a backward pass, where a checkpointed forward runs again with the generators that it
    had. `differentiated`: a backward pass with create_graph=True came through, so that a later loss may depend on it in
    ways that its graph does not show. `draws_otherwise`: its draws cannot be made again. `used`: a loss that was
    observed is its, or a later one's.
    """

    state: ForwardState
    module: weakref.ref[torch.nn.Module]
    told: bool = False
    recomputed: bool = False
    draws_otherwise: bool = False
    first: int = 0
    end: int = 0
    versions: tuple[Sequence[int], Sequence[int]] = ((), ())
    generators: Mapping[str, torch.Tensor] = field(default_factory=dict)
    marks: list[weakref.ref[Any]] = field(default_factory=list)
    differentiated: bool = False
    used: bool = False

    @property
    def gone(self) -> bool:
        """Whether nothing can come of it any more: its graph is freed."""
        return bool(self.marks) and not self.differentiated and all(mark() is None for mark in self.marks)

    @property
    def draws(self) -> bool:
        """Whether it drew from a generator."""
        return not _equal(self.state.generators, self.generators)

    def leads_to(self, other: Forward) -> bool:
        """Whether `other` began with the generators as this one left them."""
        return _equal(self.generators, other.state.generators)

    def passed(self, *marks: Any) -> None:
        """A backward pass came through."""
        if torch.is_grad_enabled():
            self.differentiated = True


@dataclass
class SampleStates:
    """What is known of the forwards that made a loss.

    `states` are those of its forwards in their order; one alone where all that they drew follows from the first one's
    generators; none: nothing is known. `no_randomness` says why the sample has no generator states, and `no_replay`
    why it cannot be evaluated again at all.
    """

    states: list[ForwardState] = field(default_factory=list)
    no_randomness: str = ""
    no_replay: str = ""


class Forwards:
    """The forwards since the last step, of one model and what is around it.

    `latest` is the last that ended. `buffers` gives the model's, whose versions tell what was written between forwards.
    """

    def __init__(self, devices: list[torch.device], buffers: Callable[[], Sequence[torch.Tensor]]) -> None:
        self._devices, self._buffers = devices, buffers
        self._key = object()
        self._forwards: list[Forward] = []
        self.reset()

    def reset(self) -> None:
        """A step was made: what came before leads to nothing."""
        # Generator states lie above all that a forward has made: given up now, the C library would give its memory back
        # to the system, and take it again in the next one.
        self._above = [(each.state.generators, each.generators) for each in self._forwards]
        self._open: list[Forward] = []  # one within another: of a wrapper and of what it wraps
        self._forwards = []
        self._gone = 0
        self.latest: Forward | None = None

    def told(self, module: torch.nn.Module, state: Callable[[], ForwardState]) -> None:
        """Somebody says that the coming loss's forward begins.

        Of several beginnings the first counts, but one in training mode replaces one in evaluation mode.
        """
        before = [forward for forward in self._forwards if forward.told and not forward.used]
        if before and (before[0].state.training or not module.training):
            return
        self._forwards = [forward for forward in self._forwards if forward not in before]
        self._forwards.append(Forward(state(), weakref.ref(module), told=True))

    def begins(self, module: torch.nn.Module, state: Callable[[], ForwardState]) -> None:
        """A forward of `module` begins; inside another one it is a part of that."""
        for place, forward in enumerate(self._open):
            if forward.module() is module:  # it never ended: an exception
                del self._open[place:]
                break
        if self._open:
            return
        kept = [forward for forward in self._forwards if forward.used or not forward.gone]
        self._gone += len(self._forwards) - len(kept)
        self._forwards = kept
        self._open.append(
            Forward(
                state(),
                weakref.ref(module),
                recomputed=in_backward(),
                draws_otherwise=draws_otherwise(module),
                first=next_number(),
                versions=(self._versions(), ()),
            )
        )

    def ended(self, module: torch.nn.Module, output: Any) -> None:
        """The forward of `module` gave `output`."""
        place = next((i for i, forward in enumerate(self._open) if forward.module() is module), None)
        if place is None:
            return
        forward = self._open[place]
        del self._open[place:]
        if place:
            return
        forward.end, forward.generators = next_number(), generator_states(self._devices)
        self._above = []
        forward.versions = forward.versions[0], self._versions()
        passed = weakref.WeakMethod(forward.passed)
        forward.marks = [
            mark_node(node, self._key, lambda *gradients: (method := passed()) and method(*gradients))
            for node in outputs_made_since(output, forward.first)
        ]
        self._forwards.append(forward)
        self.latest = forward

    def of(self, loss: Any) -> SampleStates:
        """The states of the forwards that made this loss; they, and all before them, are used up."""
        made, unknown = self._made(loss)
        for forward in self._forwards:
            forward.used = True
            if made and forward is made[-1]:
                break
        return _ambiguous(made, unknown.format(len(made) + self._gone)) if unknown else _states(made)

    def of_forwards(self, known: Sequence[Forward]) -> SampleStates:
        """The same, where it is known which ones they were."""
        made = self._with_differentiated(known)
        for forward in made:
            forward.used = True
        return _states(made)

    def _made(self, loss: Any) -> tuple[list[Forward], str]:
        """The forwards of a loss; or those of which it may be, and why that is not known."""
        free = [forward for forward in self._forwards if not forward.used]
        if told := [forward for forward in free if forward.told]:
            return told, ""
        seen = [forward for forward in self._forwards if not forward.told]
        first = [forward for forward in free if not forward.recomputed] or free
        if not isinstance(loss, torch.Tensor) or loss.grad_fn is None:
            return first, VALUE_ONLY if len(first) + self._gone > 1 else NO_FORWARD if seen and not first else ""
        known = {mark for forward in seen for each in forward.marks if (mark := each()) is not None}
        found = marks_in(loss.grad_fn, self._key, known)
        made = [forward for forward in seen if any(each() in found for each in forward.marks)]
        if not made:
            numbers = numbers_in(loss.grad_fn)
            made = [forward for forward in seen if any(forward.first <= number < forward.end for number in numbers)]
        if made:
            return self._with_differentiated(made), ""
        if len(free) == 1 and free[0].recomputed:  # of a forward under no_grad, by a function of its own in the graph
            return free, ""
        return first, NOT_IN_GRAPH if seen or self._gone else ""

    def _with_differentiated(self, made: Sequence[Forward]) -> list[Forward]:
        """These, and those that a gradient was made of which may be a part of the loss, in their order."""
        also = [forward for forward in self._forwards if forward.differentiated and not forward.used]
        return [forward for forward in self._forwards if forward in made or forward in also]

    def _versions(self) -> list[int]:
        return [buffer._version for buffer in self._buffers()]


def _states(made: list[Forward]) -> SampleStates:
    """Of forwards that are known, in their order."""
    if not made:
        return SampleStates()
    states = [forward.state for forward in made]
    pairs = list(itertools.pairwise(made))
    if any(list(one.versions[1]) != list(other.versions[0]) for one, other in pairs):
        return SampleStates(states[:1], no_replay="something wrote into the model's buffers between its forwards")
    if any(state.modes != states[0].modes for state in states):
        return SampleStates(states[:1], no_replay="its forwards were made in different modes of the model's modules")
    if any(state.modes != states[0].modes for state in states):
        return SampleStates(states[:1], no_replay="its forwards were made in different modes of the model's modules")
    if any(forward.draws_otherwise and forward.draws for forward in made):
        return SampleStates([states[0].without_generators()], no_randomness=OTHER_DRAWS)
    follows = all(one.leads_to(other) for one, other in pairs) or not any(forward.draws for forward in made)
    return SampleStates(states[:1] if follows else states)


def _ambiguous(made: list[Forward], reason: str) -> SampleStates:
    """Of forwards any of which may have made the loss: what is the same in all of them holds."""
    if not made:
        return SampleStates(no_randomness=reason, no_replay=reason)
    first = made[-1].state
    if any(not first.agrees(forward.state) for forward in made):
        return SampleStates(no_randomness=reason, no_replay=f"buffers and modes differ between forwards: {reason}")
    drawn = any(forward.draws for forward in made)
    return SampleStates([first.without_generators() if drawn else first], no_randomness=reason if drawn else "")


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(state, other[name]) for name, state in one.items())

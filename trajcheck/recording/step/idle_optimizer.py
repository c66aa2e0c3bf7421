"""Whether parameters move from one observed loss to the next although the optimizer that is recorded makes no step."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from trajcheck.readable import some_of
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.model.updates_by_hand import HOW, UpdatesByHand
from trajcheck.recording.outside_graphs import NO_HOOKS, seen_whole
from trajcheck.recording.step.places import Place, Places
from trajcheck.recording.unedited_loop.live_objects import live_optimizers, parameters_of


class IdleOptimizer:
    """`observed()` is told of every observation, and says once what is wrong, '' else.

    A single move between two observations of one step may be SAM's, unless another optimizer of these parameters is
    there that can have made it.
    """

    def __init__(self, optimizers: Optimizers, parameters: Sequence[Parameter], places: Places) -> None:
        self._optimizers = optimizers
        self._parameters = {p.name: p.source for p in parameters}
        self._places = places
        self._last: tuple[int, Place] | None = None
        self._moves, self._said = 0, False

    def observed(self, step: int, forward: Place | None) -> str:
        """`forward`: where the parameters were in the forward of what is observed, if that is known."""
        if self._said:
            return ""
        place = self._places.now() if forward is None else forward
        last, self._last = self._last, (step, place)
        if last is None:
            return ""
        if last[0] != step:
            self._moves = 0
            return ""
        moved = [] if place == last[1] else place.different(last[1], self._parameters)
        self._moves += bool(moved)
        others = self._others() if moved else []
        if not others and self._moves < 2:
            return ""
        self._said = True
        by = f"{some_of(others)} updates them, which is not recorded" if others else "something else updates them"
        return (
            f"{self._optimizers.name} has made no step since the last observe(), at step {step}, and {some_of(moved)} "
            f"changed: {by}. What is not recorded is not in the run; {self._advice}"
        )

    @property
    def _advice(self) -> str:
        if isinstance(self._optimizers.members[0], UpdatesByHand):
            return f"{HOW} tells it"
        if seen_whole:
            return f"a step was compiled as one graph, {NO_HOOKS}"
        return "give the Recorder the optimizer that steps"

    def _others(self) -> list[str]:
        """Further optimizers of these parameters, by their classes."""
        gc.collect()  # one that nobody can reach any more makes no step
        mine = {id(optimizer) for optimizer in self._optimizers.members}
        held = set(map(id, self._parameters.values()))
        return [
            type(other).__name__
            for other in live_optimizers()
            if id(other) not in mine and held & parameters_of(other).keys()
        ]

"""The generator states of a sample whose loss runs the model more than once, with other draws between.

A GAN's discriminator runs on real inputs and on generated ones, and the noise for these is drawn in between: the masks
of the second forward do not follow from the state in which the first began. Each forward is then given its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trajcheck.objective.sample import Sample


@dataclass
class Calls:
    """How often the model was called, of how many times."""

    count: int
    wanted: int

    @property
    def differ(self) -> str:
        """Why the draws are not those of the training; "" where they are."""
        if self.count == self.wanted:
            return ""
        return (
            f"not the step's own: in training {self.wanted} forwards of the model made its loss, with other draws "
            f"between, and the objective calls the model {self.count} times, so its masks cannot be given to each"
        )


@contextmanager
def states_of_forwards(sample: Sample, i: int, model: torch.nn.Module, device: torch.device) -> Iterator[Calls]:
    """While the loss of micro-batch i is computed: each call of the model begins with its own state, if it has one."""
    count = sample.forwards[i] if sample.forwards else 1
    calls = Calls(0, count)
    if count == 1:
        calls.count = 1
        yield calls
        return
    start = sum(sample.forwards[:i])

    def begins(*_: object) -> None:
        if calls.count < count:
            sample.set_states(start + calls.count, device)
        calls.count += 1

    hook = model.register_forward_pre_hook(begins)
    try:
        yield calls
    finally:
        hook.remove()

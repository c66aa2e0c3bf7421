"""How much of a gradient's trace weight decay has taken out of a later iterate.

A step's own term lies in x_s and in a later x_T alike, and x_s - x_T is free of it only if both hold as much of it.
Weight decay multiplies what lies in x_s by exp(-D) on the way to x_T, D the sum over the steps of rate times decay, so
that x_s - x_T keeps 1 - exp(-D) of the term, with the other sign, however far ahead s lies.
"""

from __future__ import annotations

import math
from bisect import bisect_right

from trajcheck.runs.optimizer_settings import Group, OptimizerSettings
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory

#: The share of the own term from which on no cosine is called free of it.
LIMIT = 0.05

#: Optimizers whose weight decay shrinks the parameters by rate times decay at every step, decoupled or not.
_SHRINKS = ("SGD", "FusedSGD")


class DecayedTerms:
    """Of one run; a rate or a decay that is not known counts as one that takes all."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._steps = trajectory.steps
        snapshots, settings = trajectory.snapshots, trajectory.settings
        self._sums = [0.0]
        for place in range(len(snapshots) - 1):
            passed = _passed(settings.at(place), snapshots[place], snapshots[place + 1])
            self._sums.append(self._sums[-1] + passed)

    def taken(self, place: int, step: int) -> float:
        """1 - exp(-D) from the record at a place to that of a later step, in [0, 1]."""
        last = max(bisect_right(self._steps, step) - 1, place)
        if math.isinf(self._sums[last]):
            return 0.0 if self._sums[place] == self._sums[last] and last == place else 1.0
        return -math.expm1(self._sums[place] - self._sums[last])

    @property
    def most(self) -> float:
        """From the first record to the last."""
        return self.taken(0, self._steps[-1])


def _passed(settings: OptimizerSettings, first: Snapshot, then: Snapshot) -> float:
    """D of the steps from one record to the next, the largest of all parameter groups."""
    found = [0.0]
    for number, group in enumerate(settings.groups):
        if decay := group.get("weight_decay"):
            rates = _rates(number, first, then)
            found.append(math.inf if rates is None else rates * float(decay) * _times(settings.name, group))
    return max(found)


def _rates(number: int, first: Snapshot, then: Snapshot) -> float | None:
    """The sum of the rates of a group over those steps."""
    before, after, rates = first.tau or (), then.tau or (), first.lr or ()
    if number < min(len(before), len(after)):
        return after[number] - before[number]
    return rates[number] * (then.step - first.step) if number < len(rates) else None


def _times(name: str | None, group: Group) -> float:
    """By how much more than rate times decay a step shrinks the parameters: a decay that is part of the gradient is
    carried on by momentum, and where gradients are divided by their size nobody knows."""
    if group.get("decoupled"):
        return 1.0
    if str(group.get("optimizer", name)) not in _SHRINKS:
        return math.inf
    momentum = float(group.get("momentum") or 0)
    return 1 / (1 - momentum) if momentum < 1 else math.inf

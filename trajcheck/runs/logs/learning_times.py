"""Rates, losses and times tau of snapshots, from what records and a log say of every step.

    tau_t = sum_{i<t} eta_i,    sum_{i<t} eta_i^2      one of each a parameter group, over ALL steps before t

added up step by step as the Recorder does, from 0 at step 0, or from the last record that has the sums. A step that the
loss scaler skipped adds nothing. Where the rate of one step in between is unknown there is no tau, nor after it, and
`omitted["tau"]` names that step; nothing is ever guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from trajcheck.errors import RunError
from trajcheck.runs.logs.run_log import AT_STEP, RunLog
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot

Sums = tuple[float, ...]

#: Relative difference up to which a logged rate is the recorded one: what logs print has some six digits.
SAME_RATE = 1e-5


def with_times(info: RunInfo, snapshots: Sequence[Snapshot], log: RunLog | None) -> list[Snapshot]:
    """The snapshots of a run, in order, with rates and losses of the log where they have none of their own, and with
    the sums that follow.

    Raises RunError where a rate of the log is another than the recorded one: steps are then counted otherwise in it, or
    it is another run's.
    """
    if log is not None:
        snapshots = [_filled(snapshot, log, len(info.groups)) for snapshot in snapshots]
    if not any(snapshot.lr for snapshot in snapshots) and not (log and log.lr):
        return list(snapshots)
    times = _Times(log, next((len(each.lr) for each in snapshots if each.lr), len(info.groups)))
    return [times.timed(snapshot) for snapshot in snapshots]


def _filled(snapshot: Snapshot, log: RunLog, groups: int) -> Snapshot:
    logged = _of_groups(log.lr.get(snapshot.step), len(snapshot.lr or ()) or groups)
    if snapshot.lr and logged and not snapshot.skipped and not _same(snapshot.lr, logged):
        raise RunError(
            f"{log.source}: the rate of step {snapshot.step} is {_shown(logged)} there and {_shown(snapshot.lr)} in "
            f"{snapshot.path}. A log's step t is the update from x_t, t the number of updates made before."
        )
    found, omitted = snapshot.loss, snapshot.omitted
    if found is None and snapshot.step in log.loss:
        if log.loss_kind == AT_STEP:
            found = log.loss[snapshot.step]
        else:
            mean = f"{log.source} has a mean over the steps since the entry before, of no single iterate"
            omitted = {**omitted, "loss": mean}
    return replace(snapshot, lr=snapshot.lr or logged, loss=found, omitted=omitted)


def _of_groups(rates: Sums | None, groups: int) -> Sums | None:
    """A log's single rate is that of all groups."""
    return rates * max(groups, 1) if rates is not None and len(rates) == 1 else rates


def _same(own: Sums, logged: Sums) -> bool:
    pairs = zip(own, logged, strict=False)
    return len(own) == len(logged) and all(abs(a - b) <= SAME_RATE * max(abs(a), abs(b)) for a, b in pairs)


class _Times:
    """The sums up to a step, on their way through the snapshots of a run, in order. `groups` is how many parameter
    groups there are before the first record that says so."""

    def __init__(self, log: RunLog | None, groups: int) -> None:
        self._rates = {} if log is None else log.lr
        self._groups = max(groups, 1)
        self._step, self._why = 0, ""
        self._tau: Sums | None = (0.0,) * self._groups
        self._squares: Sums | None = self._tau
        self._before: Snapshot | None = None

    def timed(self, snapshot: Snapshot) -> Snapshot:
        """The next snapshot with its sums, its own where it has them."""
        known = snapshot.tau is not None and snapshot.tau_squares is not None
        while not known and self._step < snapshot.step and not (self._tau is self._squares is None):
            self._add(self._rates_of(self._step))
            self._step += 1
        self._step, self._before = snapshot.step, snapshot
        self._groups = len(snapshot.lr or ()) or self._groups
        self._tau = snapshot.tau or _widened(self._tau, self._groups)
        self._squares = snapshot.tau_squares or _widened(self._squares, self._groups)
        if self._tau is None and self._why:
            snapshot = replace(snapshot, omitted={**snapshot.omitted, "tau": self._why})
        if (self._tau, self._squares) == (snapshot.tau, snapshot.tau_squares):
            return snapshot
        return replace(snapshot, tau=self._tau, tau_squares=self._squares)

    def _rates_of(self, step: int) -> Sums | None:
        before = self._before
        if before is not None and before.step == step:
            return (0.0,) * self._groups if before.skipped else before.lr
        return _of_groups(self._rates.get(step), self._groups)

    def _add(self, rates: Sums | None) -> None:
        """One update of every group; a new group has moved nothing before."""
        if rates is None or len(rates) < max(len(self._tau or ()), len(self._squares or ())):
            self._tau = self._squares = None
            what = "is not known" if rates is None else f"is given for {len(rates)} parameter groups, of more"
            self._why = f"the learning rate of step {self._step} {what}"
            return
        tau, squares = _widened(self._tau, len(rates)), _widened(self._squares, len(rates))
        self._tau = None if tau is None else _finite(a + b for a, b in zip(tau, rates, strict=True))
        self._squares = None if squares is None else _finite(a + b * b for a, b in zip(squares, rates, strict=True))
        if tau is not None and self._tau is None:
            self._why = f"the sum of the learning rates up to step {self._step} is beyond the largest number"


def _finite(sums: Iterable[float]) -> Sums | None:
    found = tuple(sums)
    return found if all(map(math.isfinite, found)) else None


def _widened(sums: Sums | None, groups: int) -> Sums | None:
    return None if sums is None else sums + (0.0,) * (groups - len(sums))


def _shown(rates: Sums) -> str:
    return ", ".join(f"{rate:g}" for rate in rates[:4])

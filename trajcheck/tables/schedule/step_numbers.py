"""A rate and |g|^2 of every step of a run, from a log of all steps or from records of each; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.runs.logs.all_losses import arrays
from trajcheck.runs.trajectory import Trajectory
from trajcheck.tables.schedule.subgradient_steps import rate_arrays
from trajcheck.tables.source import Source

#: Steps from the first to the last.
MOST_STEPS = 20_000_000
NOT_TAKEN = "--metrics and --sample leave out those of recorded gradients (secant, own), or --steps this step"
RECORD = "record the run with every-step.f64, or every step"


@dataclass(frozen=True)
class StepNumbers:
    """Of the steps from `first` on, `rates` [n] and `squares` [n], |g_t|^2 of the gradient as the optimizer used it;
    NaN where one is not known. A step that a loss scaler skipped has rate 0. The first `known` have all that sums over
    them take; `why` says what the next one lacks."""

    first: int
    rates: np.ndarray
    squares: np.ndarray
    known: int
    why: str
    skipped: frozenset[int]


def step_numbers(trajectory: Trajectory, steps: Sequence[int], own: Source | None) -> StepNumbers:
    """Of the steps from the first to the last of `steps`, those of rows. `own` has the gradients of recorded ones."""
    first, last = steps[0], _last_update(trajectory, steps)
    count = last - first + 1
    if count > MOST_STEPS:
        why = f"{count:,} steps; expected {MOST_STEPS:,} at most"
        return StepNumbers(first, np.full(1, np.nan), np.full(1, np.nan), 0, why, frozenset())
    rates, squares = np.full(max(count, 0), np.nan), np.full(max(count, 0), np.nan)
    skipped = set[int]()
    if (log := trajectory.log) is not None:
        for values, (at, logged) in ((rates, rate_arrays(log)), (squares, arrays(log.grad_sq))):
            here = (at >= first) & (at <= last)
            values[at[here] - first] = logged[here]
        skipped |= log.skipped
    differ = _from_records(trajectory, first, rates, skipped)
    if own is not None:
        for row, scalars in zip(own.rows.rows, own.own, strict=True):
            clip, square = trajectory.snapshots[row.place].clip, scalars.grad_sq
            if first <= row.step <= last and None not in (clip, square) and np.isnan(squares[row.step - first]):
                squares[row.step - first] = float(square or 0.0) * float(clip or 0.0) ** 2
    lacks = np.isnan(rates) | ((rates > 0) & np.isnan(squares))
    known = int(np.argmax(lacks)) if lacks.any() else len(rates)
    why = ""
    if known < len(rates):
        step = first + known
        what = "the rate" if np.isnan(rates[known]) else "the gradient's norm"
        place = trajectory.index(step)
        recorded = place is not None and bool(trajectory.snapshots[place].gradients) and what != "the rate"
        do = NOT_TAKEN if recorded else RECORD
        why = f"{what} of step {step} is not known, and the sums take those of every step: {do}"
        if step in differ:
            why = f"parameter groups differ in their rates at step {step}: the theorem is of one rate a step"
    elif not len(rates):
        why = "the run has no update"
    return StepNumbers(first, rates, squares, known, why, frozenset(step for step in skipped if first <= step <= last))


def _from_records(trajectory: Trajectory, first: int, rates: np.ndarray, skipped: set[int]) -> set[int]:
    """Put the rates of records to those of the log; the steps at which parameter groups differ."""
    differ = set[int]()
    for snapshot in trajectory.snapshots:
        place = snapshot.step - first
        if not 0 <= place < len(rates):
            continue
        if snapshot.skipped:
            rates[place] = 0.0
            skipped.add(snapshot.step)
        elif snapshot.lr and len(set(snapshot.lr)) == 1:
            rates[place] = snapshot.lr[0]
        elif snapshot.lr:
            rates[place] = np.nan
            differ.add(snapshot.step)
    for step in skipped:
        if 0 <= step - first < len(rates):
            rates[step - first] = 0.0
    return differ


def _last_update(trajectory: Trajectory, steps: Sequence[int]) -> int:
    """The last step of these of which there may be an update: the iterate that closes a run has none."""
    place = trajectory.index(steps[-1])
    assert place is not None
    closing = trajectory.snapshots[place]
    made = closing.lr or closing.gradients or closing.skipped or place < len(trajectory.snapshots) - 1
    return steps[-1] if made else steps[-1] - 1

"""Which records of two runs belong together: at equal step, equal time tau, or nearest loss.

From step numbers and recorded scalars alone; no tensor is read. tau_t = sum_{i<t} eta_i is the time of the gradient
flow that the iterate x_t is to be compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.errors import RunError
from trajcheck.readable import runs_of_steps
from trajcheck.runs.trajectory import Trajectory

#: Of two times, relative to the larger: below it they are one, however their sums were rounded.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Pair:
    """A record of run A, at `place_a` in its trajectory, and the point of run B that belongs to it.

    That is the record at `place_b`; or, with `fraction` s in (0, 1), the point (1-s) x_k + s x_{k+1} between that
    record, k, and the next.
    """

    place_a: int
    place_b: int
    fraction: float = 0.0

    @property
    def interpolated(self) -> bool:
        return self.fraction > 0

    @property
    def near_b(self) -> tuple[int, ...]:
        """The records of B that the point is made of."""
        return (self.place_b, self.place_b + 1) if self.interpolated else (self.place_b,)


@dataclass(frozen=True)
class Unmatched:
    """The records of one run that have no partner in the other, and why."""

    steps: tuple[int, ...]
    recorded: tuple[int, ...]
    reason: str

    @property
    def text(self) -> str:
        """Their steps, a-b standing for all recorded ones from a to b."""
        return runs_of_steps(self.steps, self.recorded)


@dataclass(frozen=True)
class Pairing:
    """Pairs in the order of A's steps, and what of either run is in none."""

    pairs: tuple[Pair, ...]
    unmatched_a: Unmatched
    unmatched_b: Unmatched


def pair_up(
    a: Trajectory,
    b: Trajectory,
    how: str,
    places_a: Sequence[int],
    places_b: Sequence[int],
    *,
    tolerance: float | None = None,
    interpolate: bool = False,
) -> Pairing:
    """Pair the records of A at `places_a` with those of B at `places_b`; no record is in two pairs, but under `loss`.

    `step`: equal step numbers. `time`: each record's partner is the one nearest in tau, if that is so both ways and
    |tau_a - tau_b| <= `tolerance` (None: 1e-9 of the larger, and what sums of as many rates lose by rounding); with
    `interpolate`, a record of A without a partner gets the point between the two records of B around its tau. `loss`:
    see `nearest_losses`; pairs whose losses differ by more than `tolerance` are left out.

    Raises RunError, saying what either run has, where nothing can be matched.
    """
    if how == "step":
        pairs = _by_step(a, b, places_a, places_b)
        reason = "the other run has no record of this step"
    elif how == "time":
        pairs = _by_time(a, b, places_a, places_b, tolerance, interpolate)
        reason = "its tau is not known, its parameter groups differ in it, or the other run has no record at it"
    else:
        pairs = _by_loss(a, b, places_a, places_b, tolerance)
        reason = "no loss was recorded, or the other run has no record whose loss is as near"
    if not pairs:
        raise RunError(
            f"no record of {a.path} could be matched with one of {b.path} by {how}. {a.path} has "
            f"{_what(a, places_a, how)}; {b.path} has {_what(b, places_b, how)}. {_advice(a, b, how)}"
        )
    taken_a = {pair.place_a for pair in pairs}
    taken_b = {place for pair in pairs for place in pair.near_b}
    return Pairing(tuple(pairs), _unmatched(a, places_a, taken_a, reason), _unmatched(b, places_b, taken_b, reason))


def agreed(groups: tuple[float, ...] | None) -> float | None:
    """One number where all parameter groups have the same, else None."""
    return groups[0] if groups and len(set(groups)) == 1 else None


def _by_step(a: Trajectory, b: Trajectory, places_a: Sequence[int], places_b: Sequence[int]) -> list[Pair]:
    at = {b.steps[place]: place for place in places_b}
    return [Pair(place, at[a.steps[place]]) for place in places_a if a.steps[place] in at]


def _by_time(
    a: Trajectory,
    b: Trajectory,
    places_a: Sequence[int],
    places_b: Sequence[int],
    tolerance: float | None,
    interpolate: bool,
) -> list[Pair]:
    timed_a, tau_a = _timed(a, places_a)
    timed_b, tau_b = _timed(b, places_b)
    if not (len(timed_a) and len(timed_b)):
        return []
    there, back = _nearest(tau_b, tau_a), _nearest(tau_a, tau_b)
    # each of n additions to a sum rounds it by half an epsilon at most
    additions = max(a.steps[-1], b.steps[-1])
    pairs = []
    for i, j in enumerate(there):
        larger = max(abs(tau_a[i]), abs(tau_b[j]))
        limit = (TOLERANCE + additions * 2.0**-52) * larger if tolerance is None else tolerance
        # records of one tau are matched in their order: a step of rate 0, or one that a loss scaler skipped
        same = int(np.searchsorted(tau_a, tau_a[i], "left"))
        mate = j + i - same
        if back[j] == same and mate < len(tau_b) and tau_b[mate] == tau_b[j] and abs(tau_a[i] - tau_b[j]) <= limit:
            pairs.append(Pair(timed_a[i], timed_b[mate]))
        elif interpolate:
            after = int(np.searchsorted(tau_b, tau_a[i], "right"))
            if 0 < after < len(tau_b) and tau_b[after - 1] < tau_a[i] and timed_b[after] == timed_b[after - 1] + 1:
                fraction = (tau_a[i] - tau_b[after - 1]) / (tau_b[after] - tau_b[after - 1])
                pairs.append(Pair(timed_a[i], timed_b[after - 1], float(fraction)))
    return pairs


def _timed(run: Trajectory, places: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """The places with a time, and their times."""
    times = [(place, agreed(run.snapshots[place].tau)) for place in places]
    known = [(place, tau) for place, tau in times if tau is not None and math.isfinite(tau)]
    values = np.array([tau for _, tau in known], dtype=np.float64)
    if (np.diff(values) < 0).any():
        step = run.steps[known[int(np.argmax(np.diff(values) < 0)) + 1][0]]
        raise RunError(
            f"{run.path}: tau falls at step {step}; expected sums of learning rates, which grow. Use --align step."
        )
    return [place for place, _ in known], values


def _nearest(values: np.ndarray, targets: np.ndarray) -> list[int]:
    """For each target the index of the first nearest of `values`, which are sorted."""
    right = np.searchsorted(values, targets).clip(0, len(values) - 1)
    left = (right - 1).clip(0)
    best = np.where(np.abs(targets - values[left]) <= np.abs(values[right] - targets), left, right)
    return [int(place) for place in np.searchsorted(values, values[best], "left")]


def _by_loss(
    a: Trajectory, b: Trajectory, places_a: Sequence[int], places_b: Sequence[int], tolerance: float | None
) -> list[Pair]:
    (known_a, losses_a), (known_b, losses_b) = _losses(a, places_a), _losses(b, places_b)
    if not (known_a and known_b):
        return []
    return [
        Pair(place, known_b[j])
        for place, loss, j in zip(known_a, losses_a, nearest_losses(losses_a, losses_b), strict=True)
        if tolerance is None or abs(loss - losses_b[j]) <= tolerance
    ]


def _losses(run: Trajectory, places: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """The places with a recorded, finite loss, and the losses."""
    losses = [(place, run.snapshots[place].loss) for place in places]
    known = [(place, loss) for place, loss in losses if loss is not None and math.isfinite(loss)]
    return [place for place, _ in known], np.array([loss for _, loss in known], dtype=np.float64)


def nearest_losses(a: np.ndarray, b: np.ndarray) -> list[int]:
    """j(i), never falling, that minimises sum_i |a_i - b_{j(i)}|; of several, the smallest from the end backwards.

    The losses of minibatches go up and down: the nearest one by itself would jump back and forth along the run.
    By dynamic programming, C_i(j) = |a_i - b_j| + min_{k<=j} C_{i-1}(k), in O(len(a) len(b)) time; rows of C are kept
    at every sqrt(len(a))-th i only, and made anew on the way back.
    """
    span = math.isqrt(len(a)) + 1

    def step(costs: np.ndarray, i: int) -> np.ndarray:
        return np.abs(a[i] - b) + np.minimum.accumulate(costs)

    costs, kept = np.abs(a[0] - b), {}
    for i in range(len(a)):
        costs = step(costs, i) if i else costs
        if i % span == 0:
            kept[i] = costs
    places = [int(np.argmin(costs))]
    for start, first in reversed(kept.items()):
        rows = [first]
        for i in range(start + 1, min(start + span, len(a) - 1)):
            rows.append(step(rows[-1], i))
        for row in reversed(rows if start < len(a) - 1 else []):
            places.append(int(np.argmin(row[: places[-1] + 1])))
    return places[::-1]


def _unmatched(run: Trajectory, places: Sequence[int], taken: set[int], reason: str) -> Unmatched:
    return Unmatched(
        tuple(run.steps[place] for place in places if place not in taken),
        tuple(run.steps[place] for place in places),
        reason,
    )


def _what(run: Trajectory, places: Sequence[int], how: str) -> str:
    """What one run offers for matching."""
    steps = [run.steps[place] for place in places]
    if not steps:
        return f"records of steps {run.steps[0]} to {run.steps[-1]}, none of them chosen by --steps"
    records = f"{len(steps)} records of steps {steps[0]} to {steps[-1]}"
    if how == "step":
        return records
    if how == "time":
        _, values = _timed(run, places)
        groups = any(run.snapshots[place].tau for place in places)
        why = next((why for place in places if (why := run.snapshots[place].omitted.get("tau"))), "")
        none = "whose parameter groups differ in tau" if groups else f"without a tau{f' ({why})' if why else ''}"
    else:
        _, values = _losses(run, places)
        none = "without a loss"
    what = "tau" if how == "time" else "losses"
    return f"{records} with {what} {values.min():.6g} to {values.max():.6g}" if len(values) else f"{records}, {none}"


def _advice(a: Trajectory, b: Trajectory, how: str) -> str:
    if how == "step":
        return "Try --align time or --align loss."
    if how == "loss":
        return "Try --align step, or a larger --tolerance."
    if any(_timed(run, range(len(run.snapshots)))[0] == [] for run in (a, b)):
        return "Only records with one tau for all parameter groups can be matched by time: try --align step."
    return "Try --interpolate, or a larger --tolerance."

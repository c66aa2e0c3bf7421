"""The rows of a report: which recorded steps, what surrounds each, how much it weighs, and what it cannot have.

Everything here follows from step numbers and file headers; no tensor is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from trajcheck.errors import RunError, UsageError
from trajcheck.metrics.weights import Weights
from trajcheck.runs.trajectory import Trajectory

T = TypeVar("T")

FIRST = "the first recorded step: there is no iterate before it"
UNSEEN = "something else than the optimizer changed parameters here (the summary's warnings say what)"
LAST = "the last recorded step: there is no iterate after it"


@dataclass(frozen=True)
class Row:
    """One row: the recorded step t = `step` at `place` in the trajectory.

    `stride` = t - prev_step (None in the first record). `skip` is the place of the iterate x_s of cos_skip. The
    `no_...` say why something is missing, or are empty: `no_pair` for quantities with d_t, `no_next` for those with
    d_{t+1}, `no_gradient` for the recorded gradient, `no_sample` for losses and gradients that are replayed on z_t,
    `no_previous_sample` for those on the sample of the record before, `no_evaluation` for what is replayed on any
    sample, `no_window` for sums over all steps since the record before, `no_update` for what d_t tells of the
    optimizer, and `no_next_update` for what d_{t+1} does.
    """

    place: int
    step: int
    prev_step: int | None
    stride: int | None
    skip: int | None
    no_pair: str
    no_next: str
    no_gradient: str
    no_sample: str
    no_previous_sample: str
    no_window: str
    no_evaluation: str
    no_update: str
    no_next_update: str

    @property
    def iterates(self) -> dict[str, int | None]:
        """The places of the iterates that its products are made of, by their names in inner_products/catalogue.py; some
        may lie beyond the run's ends."""
        return {"x": self.place, "previous": self.place - 1, "next": self.place + 1, "skip": self.skip, "first": 0}

    @property
    def near(self) -> tuple[int, ...]:
        """The places of the iterates that its products are made of, its own first."""
        return (self.place, self.place - 1, self.place + 1, self.place if self.skip is None else self.skip)

    def no_sample_of(self, convention: str) -> str:
        """Why nothing can be replayed under own, previous, probe or full; '' where something can."""
        return {"own": self.no_sample, "previous": self.no_previous_sample}.get(convention, self.no_evaluation)


@dataclass(frozen=True)
class Rows:
    """`rows` are those of the report; `support` are recorded steps just before some of them that are not rows
    themselves, for the quantities that look back (descent, update_cos). `stride` is the run's smallest.

    `counted` are the steps, of the range that was chosen, that weights of quantities of one point are counted by, and
    `counted_previous` those on the sample of the record before; `updates` are those i whose chord from x_i to x_{i+1}
    can be measured on the sample of its end, and `fixed_updates` on probe batches or a data set. `skip` is how many
    steps on the iterate of cos_skip lies at least.
    """

    rows: tuple[Row, ...]
    support: tuple[Row, ...]
    stride: int
    counted: range = range(0)
    counted_previous: range = range(0)
    updates: range = range(0)
    fixed_updates: range = range(0)
    skip: int = 1

    @cached_property
    def work(self) -> tuple[Row, ...]:
        """Rows and support in the order of their steps: what the pass and the replay walk over."""
        return tuple(sorted((*self.rows, *self.support), key=lambda row: row.place))

    @cached_property
    def _by_place(self) -> dict[int, Row]:
        return {row.place: row for row in self.work}

    def before(self, row: Row) -> Row | None:
        """The recorded step just before a row's, where the two are a pair."""
        return None if row.no_pair else self._by_place[row.place - 1]

    def some(self, places: Collection[int]) -> Rows:
        """Those of `work` that are at these places."""
        chosen = frozenset(places)
        rows, support = (tuple(row for row in each if row.place in chosen) for each in (self.rows, self.support))
        return replace(self, rows=rows, support=support)

    @cached_property
    def places(self) -> frozenset[int]:
        return frozenset(row.place for row in self.rows)

    def point_weights(self, sample: str) -> Weights:
        """Of quantities of one point on a kind of sample."""
        counted = self.counted_previous if sample == "previous" else self.counted
        return Weights(self._steps, counted.start, len(counted))

    def weights_until(self, end: int) -> Weights:
        """Of quantities of one point that exist at steps before `end` alone."""
        return Weights(self._steps, self.counted.start, max(min(self.counted.stop, end) - self.counted.start, 0))

    def pair_weights(self, sample: str) -> Weights:
        """Of quantities with d_t on a kind of sample: a chord lies at its middle, update i at i + 1/2."""
        middles = [np.nan if row.no_pair or not row.stride else row.step - row.stride / 2 for row in self.rows]
        fixed, start = len(self.fixed_updates), self.updates.start + 0.5
        if sample in ("probe", "full"):
            return Weights(np.array(middles), start, fixed, self.stride)
        return Weights(np.array(middles), start, len(self.updates), self.stride, more=fixed - len(self.updates))

    @property
    def steps_thinned(self) -> bool:
        """Whether steps that count are no rows."""
        return self._missing(1)

    @property
    def updates_thinned(self) -> bool:
        """The same of chords of the smallest stride, one after the other."""
        return self._missing(self.stride)

    def _missing(self, stride: int) -> bool:
        return not set(self.counted[::stride]) <= {row.step for row in self.rows}

    @cached_property
    def _steps(self) -> np.ndarray:
        return np.array([row.step for row in self.rows], dtype=np.float64)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most so many of some items, spread evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(number * (len(items) - 1) / max(count - 1, 1))] for number in range(max(count, 0))]


def parse_steps(text: str | None) -> slice:
    """`A:B:C` as a slice of step numbers. Raises UsageError."""
    if text is None:
        return slice(0, None, 1)
    parts = text.split(":")
    try:
        if not 2 <= len(parts) <= 3:
            raise ValueError
        start, stop, jump = (int(part) if part.strip() else None for part in (*parts, "")[:3])
        if min(start or 0, stop or 0) < 0 or (jump is not None and jump < 1):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--steps {text!r}: expected A:B:C, a slice of step numbers from 0 on, as in 100:2000 or ::10."
        ) from None
    return slice(start or 0, stop, jump or 1)


def choose_rows(trajectory: Trajectory, steps: slice, skip: int | None = 1) -> Rows:
    """The rows of a report over the steps in `steps`. `skip`: how many steps x_s lies ahead of a row at least; None:
    nobody knows, and there is none.

    Choosing moves neither the first iterate, nor the last, nor the previous iterate of a row; only the weights follow
    the choice: a row stands for the steps that lie nearer to it than to any other, in the range or in the run.

    Raises RunError when no recorded step is in the range.
    """
    recorded = trajectory.steps
    chosen = [
        place
        for place, step in enumerate(recorded)
        if step >= steps.start and (steps.stop is None or step < steps.stop) and (step - steps.start) % steps.step == 0
    ]
    if not chosen:
        raise RunError(
            f"{trajectory.path}: none of its {len(recorded)} recorded steps ({recorded[0]} to {recorded[-1]}) is in "
            f"--steps {steps.start}:{'' if steps.stop is None else steps.stop}:{steps.step}."
        )
    strides = [None, *(int(stride) for stride in np.diff(recorded))]
    smallest = _smallest_stride(trajectory, strides)
    no_pairs = [FIRST, *(_unequal(stride, smallest) for stride in strides[1:])]
    no_nexts = [*no_pairs[1:], LAST]

    no_updates = ["", *(unseen_between(trajectory, place - 1, place) for place in range(1, len(recorded)))]

    def row(place: int) -> Row:
        skipped = len(recorded) if skip is None else bisect_left(recorded, recorded[place] + skip)
        return Row(
            place=place,
            step=recorded[place],
            prev_step=recorded[place - 1] if place else None,
            stride=strides[place],
            skip=skipped if skipped < len(recorded) else None,
            no_pair=no_pairs[place],
            no_next=no_nexts[place],
            no_gradient=gradient_missing(trajectory, place),
            no_sample=_no_sample(trajectory, place),
            no_previous_sample=no_pairs[place] or _no_sample(trajectory, place - 1, "at the step before: "),
            no_window=_no_window(trajectory, place),
            no_evaluation=trajectory.no_evaluation(trajectory.snapshots[place]),
            no_update=no_updates[place],
            no_next_update=[*no_updates, ""][place + 1],
        )

    rows = tuple(map(row, chosen))
    before = [each.place - 1 for each in rows if not each.no_pair and each.place - 1 not in set(chosen)]
    return Rows(rows, tuple(map(row, before)), smallest, *_counted(trajectory, steps, smallest), skip or 1)


def _counted(trajectory: Trajectory, steps: slice, stride: int) -> tuple[range, range, range, range]:
    """The four ranges of Rows, T being the last iterate: steps 0 to T-1, and 1 to T on the samples before; updates 0 to
    T-2, and 0 to T-1."""
    first, last = trajectory.steps[0], trajectory.steps[-1]
    end = last if _closes(trajectory) else last + 1  # a run that was killed made a step after its last record
    start = max(steps.start, first)
    before = start if start == first else max(start - stride, first)
    after = max(start, first + stride)
    if steps.stop is None or steps.stop > end:
        return range(start, end), range(after, last + 1), range(before, end - 1), range(before, last)
    stop = steps.stop
    return range(start, stop), range(after, stop), range(before, stop - 1), range(before, stop - 1)


def _closes(trajectory: Trajectory) -> bool:
    """Whether the last record is the iterate that closes a run, without gradient and batch."""
    return not trajectory.snapshots[-1].gradients and not trajectory.snapshots[-1].has_batch


def _smallest_stride(trajectory: Trajectory, strides: Sequence[int | None]) -> int:
    """The run's smallest stride. The iterate that closes a run, without a gradient, is recorded wherever training
    stopped: its chord counts only where it is the only one, lest `every=10` over 995 steps have the smallest stride
    5."""
    chords = [stride for stride in strides if stride]
    return min(chords[:-1] if _closes(trajectory) and len(chords) > 1 else chords, default=1)


def _unequal(stride: int | None, smallest: int) -> str:
    if stride == smallest:
        return ""
    return (
        f"not a chord of {smallest} step{'s' if smallest > 1 else ''}, the run's smallest stride: pairs are empty here"
    )


def gradient_missing(trajectory: Trajectory, place: int) -> str:
    """Why a recorded step has no usable recorded gradient; '' where it has."""
    snapshot = trajectory.snapshots[place]
    if not snapshot.gradients:
        return _because("no gradient was recorded at this step", snapshot.omitted.get("gradient"))
    if snapshot.skipped:
        return "the loss scaler skipped this step: its gradient was not finite and not used"
    if snapshot.clip is None:
        return "the recorded gradient was clipped by an unknown factor; give --objective to replay it"
    if snapshot.clip <= 0:
        return f"the recorded gradient was clipped by a factor of {snapshot.clip:g}: nothing is left of it"
    return ""


def _no_sample(trajectory: Trajectory, place: int, where: str = "") -> str:
    reason = trajectory.no_sample(trajectory.snapshots[place])
    return reason and f"{where}{reason}"


def loss_missing(trajectory: Trajectory, place: int) -> str:
    """Why a recorded step has no loss; '' where it has."""
    if trajectory.snapshots[place].loss is not None:
        return ""
    return _because("no loss was recorded at this step", trajectory.snapshots[place].omitted.get("loss"))


def _because(missing: str, reason: str | None) -> str:
    return missing if reason is None else f"{missing}: {reason}"


def unseen_between(trajectory: Trajectory, first: int, last: int) -> str:
    """Why the difference of the iterates at two places is not what the optimizer did; '' where it is, as far as is
    known."""
    start = trajectory.steps[first]
    told = (snapshot.unseen for snapshot in trajectory.snapshots[first + 1 : last + 1])
    return UNSEEN if any(unseen is not None and unseen.last > start for unseen in told) else ""


def _no_window(trajectory: Trajectory, place: int) -> str:
    window = trajectory.snapshots[place].window
    if place == 0:
        return FIRST
    if window is None:
        return "no window sums were recorded with this step (Recorder(windows=True))"
    if window.start != trajectory.steps[place - 1]:
        return f"its window sums begin at step {window.start}, which is not the record before it"
    return ""

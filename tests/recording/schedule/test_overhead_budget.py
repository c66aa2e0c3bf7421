"""trajcheck.recording.schedule, overhead_budget and time_spent: recording keeps to its share of the training time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from trajcheck.recording.schedule.overhead_budget import GRACE, OverheadBudget
from trajcheck.recording.schedule.plan import Situation, ThinningPlan
from trajcheck.recording.schedule.schedules import Every, Listed, Pairs
from trajcheck.recording.schedule.time_spent import PAUSE, TimeSpent


@contextmanager
def inside(spent: TimeSpent) -> Iterator[None]:
    """A part of the recorder's work."""
    counts = spent.enter()
    try:
        yield
    finally:
        if counts:
            spent.leave()


@dataclass
class Loop:
    """A loop in which a step takes `training` seconds and its record `record` more."""

    training: float
    record: float
    share: float = 0.05
    seed: str = "a"
    said: list[str] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    omitted: list[int] = field(default_factory=list)  # as each record says
    excess: float = -np.inf  # the most by which records exceeded the limit, seconds

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.spent = TimeSpent(self.clock)
        self.budget = OverheadBudget(self.share, self.spent, self.seed, self.said.append)

    def run(self, steps: int, wants: Callable[[int], bool], followed: Callable[[int], bool]) -> list[int]:
        for step in range(steps):
            allowed = wants(step) and self.budget.allows(step, followed(step))
            self.clock.now += self.training
            with inside(self.spent):
                self.clock.now += self.record * allowed
                self.spent.end_step(recorded=allowed)
            if allowed:
                self.recorded.append(step)
                self.omitted.append(self.budget.recorded(step))
            self.excess = max(self.excess, self.spent.records - GRACE - self.share * self.spent.training)
        return self.recorded


def every_step(step: int) -> bool:
    return True


def even(step: int) -> bool:
    return step % 2 == 0


def test_time_is_told_apart() -> None:
    clock = Clock()
    spent = TimeSpent(clock)

    def step(training: float, hooks: list[float], apart: float, recorded: bool) -> None:
        clock.now += training
        for hook in hooks[:-1]:
            with inside(spent):
                clock.now += hook
        with inside(spent):
            with spent.for_every_step():
                clock.now += apart
            clock.now += hooks[-1] - apart
            spent.end_step(recorded=recorded)
            clock.now += 0.5  # belongs to the next step

    step(100, [50.0], 0, True)  # one-off work
    assert (spent.records, spent.every_step, spent.training, spent.share) == (0, 0, 0, 0)
    step(4, [1, 2], 0.25, True)
    assert (spent.records, spent.every_step, spent.training) == (3.25, 0.25, 4)
    step(4, [1], 0.25, False)
    assert (spent.records, spent.every_step, spent.training) == (3.25, 1.75, 8)
    assert spent.share == 5 / 8
    assert (spent.steps, spent.recorded_steps) == (2, 1)
    spent.stalled(2.0)
    assert spent.records == 5.25
    step(1e6, [0.5], 0, False)  # a notebook was left alone
    assert spent.training == 8 + PAUSE * 4


def test_waiting_for_what_the_device_has_to_do_is_training() -> None:
    clock = Clock()
    spent = TimeSpent(clock)
    spent.end_step(recorded=False)
    with inside(spent):
        with spent.of_training():
            clock.now += 3
        clock.now += 1
        spent.end_step(recorded=True)
    assert (spent.records, spent.training) == (1, 3)


def test_a_hook_within_a_hook_counts_once() -> None:
    clock = Clock()
    spent = TimeSpent(clock)
    spent.end_step(recorded=False)
    with inside(spent):
        clock.now += 1
        with inside(spent):
            clock.now += 2
        clock.now += 4
    spent.end_step(recorded=True)
    assert (spent.records, spent.training) == (7, 0)


def test_time_in_a_hook_that_raises_counts() -> None:
    clock = Clock()
    spent = TimeSpent(clock)
    spent.end_step(recorded=False)
    with pytest.raises(ZeroDivisionError), inside(spent):
        clock.now += 3
        raise ZeroDivisionError
    spent.end_step(recorded=True)
    assert spent.records == 3


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 10), st.floats(1e-4, 30), st.floats(0.01, 2), st.text(max_size=2))
def test_the_limit_holds_at_every_step_and_is_used(training: float, record: float, share: float, seed: str) -> None:
    loop = Loop(training, record, share, seed)
    recorded = loop.run(3000, every_step, even)
    assert loop.excess <= max(record - GRACE, 0) + 1e-9  # the first pair is recorded whatever it costs
    assert {step ^ 1 for step in recorded} == set(recorded)
    total = 3000 * training
    if record <= share * training and 4 * record <= GRACE:
        assert recorded == list(range(3000))
        assert loop.said == []
    if record > share * training and share * total > 8 * record:
        assert loop.spent.records >= share * total - 5 * record - 3 * share * training


def test_nothing_is_left_out_in_the_first_seconds() -> None:
    loop = Loop(0.001, 0.01)
    assert loop.run(int(GRACE / 0.01) - 10, every_step, even) == list(range(190))


@pytest.mark.parametrize("schedule", [Every(1), Pairs(10), Every(3)])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_run_of_known_length_is_recorded_evenly(schedule: Any, seed: str) -> None:
    """Of 6,000 steps of 10 ms, 5 s may go into records of 50 ms: the first 15% of the run get 15% of them."""
    loop, steps = Loop(0.01, 0.05, seed=seed), 6000
    wanted = list(filter(schedule.wants, range(steps)))
    loop.budget.planned(len(wanted), steps)
    recorded = loop.run(steps, schedule.wants, lambda step: schedule.wants(step + 1))
    assert loop.excess <= 1e-9
    assert 90 <= len(recorded) <= 100
    for share in (0.15, 0.5, 0.85):
        assert sum(step < share * steps for step in recorded) == pytest.approx(share * len(recorded), abs=6)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 400), st.floats(1e-3, 1), st.floats(0.01, 1), st.integers(1, 7))
def test_a_schedule_that_fits_is_kept_whole(steps: int, training: float, share: float, k: int) -> None:
    schedule = Every(k)
    count = len(range(0, steps, k))
    loop = Loop(training, 0.9 * GRACE / (count + 2), share)  # as if nothing but the grace were allowed
    loop.budget.planned(count, steps)
    assert loop.run(steps, schedule.wants, lambda step: schedule.wants(step + 1)) == list(range(0, steps, k))


def test_exporting_counts_against_the_share_and_not_against_the_grace() -> None:
    loop = Loop(0.01, 0.1)
    loop.spent.export = 3.0  # 60 s of training allow as much
    recorded = loop.run(12000, every_step, even)
    assert sum(step < 5900 for step in recorded) == pytest.approx(GRACE / 0.1, abs=5)
    assert loop.spent.records + 3.0 <= GRACE + 0.05 * loop.spent.training
    assert len(recorded) == pytest.approx((GRACE + 3.0) / 0.1, abs=6)


def test_the_time_of_an_export_is_told_apart() -> None:
    clock = Clock()
    spent = TimeSpent(clock)
    for recorded in (False, True):
        clock.now += 4
        with inside(spent):
            with spent.exporting():
                clock.now += 20
            clock.now += 1
            spent.end_step(recorded=recorded)
    assert (spent.export, spent.records, spent.training, spent.share) == (40, 1, 4, 41 / 4)


def test_it_is_said_once_with_numbers() -> None:
    loop = Loop(0.01, 0.5)
    loop.run(5000, every_step, even)
    assert len(loop.said) == 1
    assert "from step 2 on" in loop.said[0]
    assert "a record takes 500 ms of the training loop, a step 10 ms, and overhead=0.05 allows 5%" in loop.said[0]


def test_records_say_what_was_left_out_before_them() -> None:
    loop = Loop(0.01, 0.5)
    recorded = loop.run(5000, every_step, even)
    gaps = np.diff([-1, *recorded]) - 1
    assert loop.omitted == gaps.tolist()
    assert max(gaps) > 100


MIXED = Listed([0, 5, 6, 10, 11, *range(20, 9000, 7)])


@pytest.mark.parametrize("schedule", [Pairs(5), Pairs(4), Every(10), Every(1), MIXED])
def test_pairs_of_a_schedule_stay_whole(schedule: Any) -> None:
    """Consecutive steps; where the schedule has none, two successive ones: pairs exist over the smallest stride."""
    loop = Loop(0.01, 0.3)
    recorded = loop.run(9000, schedule.wants, lambda step: schedule.wants(step + 1))
    wanted = [step for step in range(9000) if schedule.wants(step)]
    place = {step: index for index, step in enumerate(wanted)}
    if isinstance(schedule, Pairs):
        assert all((step + 1 if step % schedule.k == 0 else step - 1) in recorded for step in recorded)
    else:
        partners = [place[step] for step in recorded]
        alone = [p for p in partners if p - 1 not in partners and p + 1 not in partners]
        assert len(alone) <= 1  # the end may cut a pair
    assert 6 < len(recorded) < len(wanted) / 2


def test_gaps_vary_so_that_nothing_periodic_is_met_at_one_phase() -> None:
    """Weighed by the steps they stand for, records sum a quantity whose period is the mean gap as any other."""
    period = 600  # of a pair that costs 2 * 0.15 s, at 5% of 10 ms a step
    loop = Loop(0.01, 0.15)
    recorded = np.array(loop.run(200_000, every_step, even))
    late = recorded[recorded > 10_000]
    gaps = np.diff(late[::2])
    assert abs(gaps.mean() / period - 1) < 0.02
    assert gaps.std() > 0.3 * period
    weights = np.diff([*late, 200_000])
    phases = np.exp(2j * np.pi * late / period)
    assert abs((weights * phases).sum() / weights.sum()) < 0.25
    regular = np.arange(10_000, 200_000, period)
    assert abs(np.exp(2j * np.pi * regular / period).mean()) > 0.99


def test_a_plan_that_deletes_keeps_the_run_even_when_records_are_left_out() -> None:
    """Records of few steps, 1 in 64 at most: deleting by a grid that they do not lie on would empty the past."""
    plan = ThinningPlan(
        120_000,
        Situation(record_bytes=1000, free_bytes=10**12, existing={}, start=0, total_steps=None, seed="a"),
    )
    loop = Loop(0.01, 0.032)
    there: set[int] = set()

    def wants(step: int) -> bool:
        if step % 2 == 0:
            plan.coarsen(loop.budget.spacing)
        return plan.wants(step)

    steps = 16_000
    for step in range(steps):
        allowed = wants(step) and loop.budget.allows(step, even(step))
        loop.clock.now += loop.training
        with inside(loop.spent):
            loop.clock.now += loop.record * allowed
            loop.spent.end_step(recorded=allowed)
        if allowed:
            there.add(step)
            plan.captured(step, 1000)
        there -= set(plan.deletable())
    late = [step for step in there if step > 1100]
    counts, _ = np.histogram(late, bins=4, range=(1100, steps))
    assert counts.min() >= 0.5 * counts.max()
    for step in there:
        assert step ^ 1 in there

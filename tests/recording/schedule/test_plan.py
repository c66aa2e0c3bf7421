"""trajcheck.recording.schedule.plan: the default plan keeps to its bytes, in pairs, and never gives up init."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loops import batch_of, loss_of, network, read, recorded_steps, train

from trajcheck.readable import size_text
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.plan import FixedPlan, Situation, ThinningPlan, make_plan, spread_pairs
from trajcheck.recording.schedule.schedules import Budget, Every


def situation(**changes: Any) -> Situation:
    usual: dict[str, Any] = {
        "record_bytes": 1000, "free_bytes": 10**12, "existing": {}, "start": 0, "total_steps": None, "seed": "a",
    }  # fmt: skip
    return Situation(**{**usual, **changes})


def simulate(plan: Any, steps: range, size: int = 1000) -> tuple[set[int], int]:
    """Recorded steps at the end, and the most bytes that there ever were."""
    there: set[int] = set()
    most = 0
    for step in steps:
        if plan.wants(step):
            there.add(step)
            plan.captured(step, size)
            plan.written(step, size)
        most = max(most, size * (len(there) + 1))
        deleted = plan.deletable()
        assert set(deleted) <= there
        there -= set(deleted)
    return there, most


def assert_pairs(steps: set[int], end: int) -> None:
    for step in steps:
        assert step ^ 1 in steps or step ^ 1 >= end, step


def test_the_default_is_20_gb_or_a_tenth_of_the_free_disk() -> None:
    for free, limit in ((10**12, 20 * 10**9), (10**9, 10**8)):
        for total in (None, 10**9):
            plan = make_plan(Budget(), situation(free_bytes=free, total_steps=total, record_bytes=10**6))
            assert isinstance(plan, ThinningPlan if total is None else FixedPlan)
            assert plan._limit == limit
            assert size_text(limit) in plan.describe()


def test_every_step_if_all_fit() -> None:
    plan = make_plan(Budget(bytes=101_000, total_steps=100), situation())
    assert simulate(plan, range(100))[0] == set(range(100))
    assert "every step" in plan.describe()
    plan = make_plan(Budget(bytes=101_000), situation())
    assert simulate(plan, range(90))[0] == set(range(90))


@settings(deadline=None)
@given(st.integers(2, 100_000), st.integers(1, 300), st.text(max_size=3))
def test_fixed_plans_keep_to_the_budget_in_pairs(total: int, records: int, seed: str) -> None:
    plan = FixedPlan(records * 1000, total, situation(seed=seed))
    steps = {step for step in range(total) if plan.wants(step)}
    assert 0 in steps
    assert len(steps) <= max(records - 1, 2)
    if total > records:
        assert_pairs(steps, total)
    if records > 4 and total > 8 * records:  # and it uses the budget
        assert len(steps) >= 0.7 * (records - 1) - 2


def test_fixed_plans_are_logarithmic_then_even() -> None:
    steps = np.array(spread_pairs(1_000_000, 1000, "a"))
    starts = steps[::2]
    assert (steps[1::2] == starts + 1).all()
    assert (starts % 2 == 0).all()
    late = starts[starts >= 10_000]
    assert len(late) > 750
    counts, _ = np.histogram(late, bins=10, range=(10_000, 1_000_000))
    assert counts.max() - counts.min() <= 2
    gaps = np.diff(late)
    assert gaps.std() > 0.2 * gaps.mean()
    early = starts[(starts > 0) & (starts < 10_000)]
    counts, _ = np.histogram(np.log10(early), bins=[2, 3, 4])
    assert abs(counts[0] - counts[1]) <= 2
    assert len(early) <= 200


def test_jitter_is_reproducible_and_depends_on_the_run() -> None:
    random.seed(0)
    torch.manual_seed(0)
    states = random.getstate(), torch.get_rng_state()
    assert spread_pairs(10_000, 50, "a") == spread_pairs(10_000, 50, "a")
    assert spread_pairs(10_000, 50, "a") != spread_pairs(10_000, 50, "b")
    runs = [simulate(ThinningPlan(50_000, situation(seed=seed)), range(3000))[0] for seed in "aab"]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@settings(deadline=None)
@example(511, 12, 3, "")  # a first of a pair that would be deleted before its second comes
@given(st.integers(1, 5000), st.integers(12, 200), st.integers(0, 50), st.text(max_size=3))
def test_thinned_plans_keep_to_the_budget_in_pairs(steps: int, records: int, start: int, seed: str) -> None:
    plan = ThinningPlan(records * 1000, situation(seed=seed, start=start))
    there, most = simulate(plan, range(start, start + steps))
    assert start in there
    assert_pairs(there | {start ^ 1}, start + steps)
    assert most <= (records + 1) * 1000
    if steps > records:
        assert len(there) >= records // 4


def test_thinned_plans_are_even_and_keep_the_beginning() -> None:
    there, _ = simulate(ThinningPlan(400_000, situation()), range(100_000))
    starts = np.array(sorted(step for step in there if step % 2 == 0))
    assert {0, 2, 4, 8, 16, 32, 64, 128, 256, 512} <= set(starts.tolist())
    late = starts[starts >= 1024]
    counts, _ = np.histogram(late, bins=4, range=(1024, 100_000))
    assert counts.max() - counts.min() <= 6  # powers of two besides
    assert len(there) >= 100
    assert np.diff(late).std() > 0


def test_steps_that_others_refer_to_are_never_deleted() -> None:
    plan = ThinningPlan(30_000, situation())
    plan.protect([13, 400])
    there, _ = simulate(plan, range(2000))
    assert {0, 1, 12, 13, 400, 401} <= there or {0, 1, 12, 13} <= there


def test_a_resumed_plan_thins_what_the_run_has() -> None:
    first = ThinningPlan(50_000, situation())
    there, _ = simulate(first, range(2000))
    again = ThinningPlan(50_000, situation(start=2000, existing=dict.fromkeys(there, 1000)))
    for step in range(2000, 20_000):
        if again.wants(step):
            there.add(step)
            again.captured(step, 1000)
        there -= set(again.deletable())
        assert len(there) <= 51
    assert {0, 1, 2000, 2001} <= there
    starts = np.array(sorted(step for step in there if step % 2 == 0 and step > 400))
    counts, _ = np.histogram(starts, bins=4, range=(400, 20_000))
    assert counts.max() - counts.min() <= 3


def test_explicit_schedules_say_what_they_need() -> None:
    plan = make_plan(Every(10), situation(total_steps=100))
    assert plan.describe() == "Every(k=10), 1.0 kB a record, 11.0 kB in all"
    assert make_plan(Every(10), situation()).describe() == "Every(k=10), 1.0 kB a record"


@pytest.mark.parametrize("frozen", [True, False])
def test_a_recorded_run_keeps_to_its_budget(frozen: bool, tmp_path: Path) -> None:
    """With a batch that is stored once, and frozen parameters: what others refer to stays."""
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters() if frozen else model.parameters(), lr=0.01)
    budget = 150_000
    with Recorder(tmp_path, model, optimizer, schedule=Budget(bytes=budget), strict=True, quiet=True) as recorder:
        for _ in range(150):
            loss = loss_of(model, batch_of(0))
            loss.backward()
            recorder.observe(batch_of(0), loss)
            optimizer.step()
            optimizer.zero_grad()
    steps = recorded_steps(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob("step-*")) <= budget
    assert 8 <= len(steps) < 75
    assert steps[:2] == [0, 1]
    assert steps[-1] == 150
    assert_pairs(set(steps[:-1]), 150)
    for step in steps[1:-1]:
        assert read(tmp_path, step)[1]["batch_from"] == 0
        assert read(tmp_path, step)[1].get("frozen_from") == (0 if frozen else None)


def test_a_resumed_run_keeps_to_its_budget(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options: dict[str, Any] = {"schedule": Budget(bytes=150_000), "strict": True, "quiet": True}
    for start in (0, 77, 150):
        with Recorder(tmp_path, model, optimizer, start_step=start, **options) as recorder:
            train(model, optimizer, range(start, start + 77 if start == 0 else start + 73), recorder)
    steps = recorded_steps(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob("step-*")) <= 150_000
    assert {0, 1, 150, 151, 223} <= set(steps)


def test_a_resumed_run_keeps_what_its_steps_refer_to(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.01)
    options: dict[str, Any] = {"schedule": Budget(bytes=100_000), "strict": True, "quiet": True}
    for begin, end in ((10, 20), (20, 200)):
        with Recorder(tmp_path, model, optimizer, start_step=begin, **options) as recorder:
            train(model, optimizer, range(begin, end), recorder)
    steps = recorded_steps(tmp_path)
    assert len(steps) < 100
    assert {read(tmp_path, step)[1].get("frozen_from") for step in steps} == {None, 10}
    assert steps[0] == 10


def test_records_of_an_explicit_schedule_are_not_thinned(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        train(model, optimizer, 40, recorder)
    budget = Budget(bytes=100_000)
    with Recorder(tmp_path, model, optimizer, start_step=40, schedule=budget, strict=True, quiet=True) as recorder:
        train(model, optimizer, range(40, 140), recorder)
    assert set(range(41)) <= set(recorded_steps(tmp_path))
    assert len(recorded_steps(tmp_path)) < 100

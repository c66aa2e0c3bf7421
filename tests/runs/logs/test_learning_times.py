"""Times of snapshots from the rates of records and of a log, against plain sums; and what is known of none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trajcheck.errors import RunError
from trajcheck.runs.logs.learning_times import with_times
from trajcheck.runs.logs.run_log import MEAN, RunLog
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot

TWO_GROUPS = RunInfo(groups=({"lr": 0.1}, {"lr": 0.1}))


def at(step: int, **facts: Any) -> Snapshot:
    return Snapshot(step, f"step-{step}", {}, **facts)


def taus(*snapshots: Snapshot, log: RunLog | None = None, info: RunInfo | None = None) -> list[Any]:
    return [each.tau for each in with_times(info or RunInfo(), snapshots, log)]


def test_every_step_recorded() -> None:
    found = with_times(
        RunInfo(), [at(0, lr=(0.5, 1.0)), at(1, lr=(0.25, 3.0), skipped=True), at(2, lr=(2.0, 2.0)), at(3)], None
    )
    assert [each.tau for each in found] == [(0, 0), (0.5, 1), (0.5, 1), (2.5, 3)]
    assert [each.tau_squares for each in found] == [(0, 0), (0.25, 1), (0.25, 1), (4.25, 5)]
    assert all(not each.omitted for each in found)


def test_a_log_knows_the_steps_between_records() -> None:
    rates = {step: (0.1 / (step + 1),) for step in range(20)}
    found = with_times(TWO_GROUPS, [at(3), at(11), at(20)], RunLog("log.csv", rates))
    for each in found:
        sums = [sum(rates[step][0] ** power for step in range(each.step)) for power in (1, 2)]
        assert each.tau == pytest.approx((sums[0],) * 2, rel=1e-14)
        assert each.tau_squares == pytest.approx((sums[1],) * 2, rel=1e-14)
        assert each.lr == (None if each.step == 20 else rates[each.step] * 2)


def test_where_one_rate_is_unknown_there_is_no_time_until_a_record_has_one() -> None:
    steps = [
        at(0, lr=(1.0,)),
        at(2, lr=(1.0,)),
        at(3, lr=(1.0,)),
        at(4, lr=(1.0,), tau=(7.0,)),
        at(5, lr=(1.0,)),
        at(9),
    ]
    found = with_times(RunInfo(), steps, None)
    assert [each.tau for each in found] == [(0.0,), None, None, (7.0,), (8.0,), None]
    assert [each.omitted.get("tau", "")[-24:] for each in found[1:3]] == ["rate of step 1 is not known"[-24:]] * 2
    assert found[5].omitted["tau"] == "the learning rate of step 6 is not known"
    assert found[4].tau_squares is None  # those of step 4 are not known
    assert taus(*steps, log=RunLog("log", {step: (1.0,) for step in (1, 6, 7, 8)}))[1:] == [
        (2,),
        (3,),
        (7,),
        (8,),
        (12,),
    ]


def test_huge_steps_cost_nothing() -> None:
    assert taus(at(0, lr=(1.0,)), at(2**53, lr=(1.0,))) == [(0.0,), None]


def test_new_groups_have_moved_nothing_and_fewer_have_no_time() -> None:
    assert taus(at(0, lr=(1.0,)), at(1, lr=(1.0, 2.0)), at(2)) == [(0,), (1, 0), (2, 2)]
    found = with_times(RunInfo(), [at(0, lr=(1.0, 2.0)), at(1, lr=(1.0,)), at(2)], None)
    assert found[2].tau is None and "1 parameter groups" in found[2].omitted["tau"]


def test_without_a_rate_nothing_is_said() -> None:
    snapshots = [at(0), at(1, loss=2.0)]
    assert with_times(RunInfo(), snapshots, None) == snapshots


def test_losses_of_a_log() -> None:
    log = RunLog("log.csv", loss={0: 3.0, 1: 2.0})
    assert [each.loss for each in with_times(RunInfo(), [at(0), at(1, loss=2.5), at(2)], log)] == [3.0, 2.5, None]
    found = with_times(RunInfo(), [at(0, loss=3.0), at(1)], RunLog("state.json", loss={1: 2.0}, loss_kind=MEAN))
    assert [each.loss for each in found] == [3.0, None]
    assert found[1].omitted["loss"].startswith("state.json has a mean over the steps since the entry before")


def test_a_log_that_contradicts_a_record_is_refused() -> None:
    rates = {step: (0.1 * 0.9**step,) for step in range(4)}
    steps = [at(step, lr=rates[step]) for step in range(4)]
    assert taus(*steps, log=RunLog("log", {s: (float(f"{r:.6g}"),) for s, (r,) in rates.items()}))[3] is not None
    with pytest.raises(
        RunError, match=r"log\.csv: the rate of step 1 is 0\.1 there and 0\.09 in step-1\. .*updates made"
    ):
        taus(*steps, log=RunLog("log.csv", {step + 1: rate for step, rate in rates.items()}))


def test_sums_are_those_of_the_recorder() -> None:
    """Added one after the other, as training does: to the last digit."""
    total = 0.0
    for step in range(1000):
        total += 0.1 / (1 + step)
    steps = [at(step, lr=(0.1 / (1 + step),)) for step in range(1001)]
    assert taus(*steps)[-1] == (total,) and total != math.fsum(0.1 / (1 + step) for step in range(1000))

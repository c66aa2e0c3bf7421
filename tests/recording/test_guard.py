"""recording/guard.py: what goes wrong inside ends there, what is no failure passes, and the time is counted once."""

from __future__ import annotations

from itertools import count

import pytest

from trajcheck.recording.guard import Guard
from trajcheck.recording.schedule.time_spent import TimeSpent


def test_a_failure_is_handed_over_and_goes_no_further() -> None:
    failures: list[Exception] = []
    guard = Guard(TimeSpent(), failures.append)
    with guard:
        raise ValueError("inside")
    assert [str(each) for each in failures] == ["inside"]


def test_what_strict_recording_raises_comes_through() -> None:
    def strict(error: Exception) -> None:
        raise RuntimeError("strict") from error

    with pytest.raises(RuntimeError, match="strict"), Guard(TimeSpent(), strict):
        raise ValueError("inside")


def test_an_interruption_is_no_failure() -> None:
    failures: list[Exception] = []
    with pytest.raises(KeyboardInterrupt), Guard(TimeSpent(), failures.append):
        raise KeyboardInterrupt
    assert failures == []


def test_time_inside_is_counted_once_and_also_when_it_fails() -> None:
    """The clock ticks a second whenever it is asked: at the two ends of the outer block, and of a step."""
    ticks = count()
    spent = TimeSpent(clock=lambda: float(next(ticks)))
    guard = Guard(spent, lambda error: None)
    for _ in range(3):
        with guard, guard:
            raise ValueError
        spent.end_step(recorded=False)
    assert (spent.every_step, spent.training) == (2.0, 4.0)

"""trajcheck.recording.schedule.schedules: which steps each of them wants."""

from __future__ import annotations

from typing import Any

import pytest

from trajcheck.errors import RecorderError
from trajcheck.recording.schedule.schedules import Budget, Every, First, Listed, Logarithmic, Pairs


def wanted(schedule: Any, steps: int = 30) -> list[int]:
    return [step for step in range(steps) if schedule.wants(step)]


def test_the_steps_they_want() -> None:
    assert wanted(Every(10)) == [0, 10, 20]
    assert wanted(Every(1)) == list(range(30))
    assert wanted(Pairs(10)) == [0, 1, 10, 11, 20, 21]
    assert wanted(Pairs(2)) == list(range(30))
    assert wanted(Pairs(1)) == list(range(30))
    assert wanted(First(4)) == [0, 1, 2, 3]
    assert wanted(Listed([7, 3, 7])) == [3, 7]
    assert wanted(Listed(range(2, 4))) == [2, 3]


def test_logarithmic_pairs() -> None:
    steps = wanted(Logarithmic(4), 2000)
    assert {0, 1, 10, 11, 100, 101, 1000, 1001} <= set(steps)
    assert {18, 19, 32, 33, 56, 57, 178, 179} <= set(steps)
    assert len([step for step in steps if 100 <= step < 1000]) == 8


def test_they_are_shown_as_they_are_written() -> None:
    for schedule in (Every(2), Pairs(3), First(4), Listed([1, 5]), Logarithmic(7), Budget(100, 3)):
        assert eval(repr(schedule)) == schedule


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, None])
def test_counts_are_positive_integers(value: Any) -> None:
    for schedule in (Every, Pairs, First, Logarithmic):
        with pytest.raises(RecorderError, match=f"{schedule.__name__}.*positive integer"):
            schedule(value)
    if value is not None:
        with pytest.raises(RecorderError, match="bytes"):
            Budget(bytes=value)
        with pytest.raises(RecorderError, match="total_steps"):
            Budget(total_steps=value)


def test_listed_steps_are_step_numbers() -> None:
    with pytest.raises(RecorderError, match="from 0"):
        Listed([-1])

"""trajcheck/progress_bar.py: what is said of how far a work has come."""

from __future__ import annotations

import io
import re
import sys

import pytest

from trajcheck.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that tqdm sees."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    return now


def shown(monkeypatch: pytest.MonkeyPatch, clock: list[float], size: int | None) -> str:
    """The bar after half of the work, before it is closed."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress_bar("reading", 100, False, size=None if size is None else lambda: size) as progress:
        for seconds in (10.0, 2.0, 2.0, 2.0, 4.0):  # a slow beginning
            clock[0] += seconds
            progress(10)
        return re.split(r"[\r\n]", terminal.getvalue().strip())[-1]


def test_rates_and_what_is_left_are_those_of_all_work_so_far(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    last = shown(monkeypatch, clock, 8_000_000_000)
    assert "50/100 steps [00:20<00:20," in last and "2.50step/s, 200 MB/s]" in last, last


def test_nothing_is_shown_where_the_output_goes_elsewhere(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress_bar("reading", 100, False) as progress:
        clock[0] += 20
        progress(50)
    assert not terminal.getvalue()


def test_without_a_size_there_is_no_rate_of_bytes(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    last = shown(monkeypatch, clock, None)
    assert last.endswith("2.50step/s]"), last


def test_nobody_is_told_and_nothing_is_counted_where_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def size() -> int:
        raise AssertionError("asked for")

    for quiet in (True, False):  # a captured stderr is no terminal
        with progress_bar("reading", 5, quiet, size=size) as progress:
            progress(5)
    assert capsys.readouterr() == ("", "")

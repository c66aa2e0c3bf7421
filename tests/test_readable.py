"""trajcheck/readable.py: numbers in words."""

from __future__ import annotations

import pytest

from trajcheck.readable import size_text, time_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_400, "99.4 kB"), (99_999, "100 kB"), (999_600, "1.0 MB"),
        (1234567, "1.2 MB"), (123_456_789, "123 MB"), (20 * 10**9, "20.0 GB"), (5.5e10, "55.0 GB"), (3e15, "3000.0 TB"),
    ],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (12.3, "12 s"), (90, "1.5 min"), (3599, "60 min"), (7200, "2 h"), (720000, "8.3 days")],
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text

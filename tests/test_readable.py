"""trajcheck/readable.py: anybody's text in one line, numbers in words."""

from __future__ import annotations

import pickle

import pytest

from trajcheck.errors import RunError, TrajcheckError
from trajcheck.readable import LONGEST, in_lines, one_line, percent_text, plain, size_text, time_text


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


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.0116, 2, "1.2%"),
        (0.02, 2, "2%"),
        (0.123, 2, "12%"),
        (0.996, 2, "100%"),
        (1.0, 2, "100%"),
        (12.345, 3, "1230%"),
    ],
)
def test_shares(share: float, digits: int, text: str) -> None:
    assert percent_text(share, digits) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer.weight", "layer.weight"), ("Gewichte ü λ 🙂", "Gewichte ü λ 🙂"), (r"C:\x1b", r"C:\x1b"),
        ("a\x1b]0;x\x07", r"a\x1b]0;x\x07"), ("a\nb\r\tc", r"a\nb\r\tc"), ("\x9b2J", r"\x9b2J"), ("\x7f", r"\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"), ("\u2066x\u2069", r"\u2066x\u2069"), ("a\u2028b", r"a\u2028b"),
        ("w\ud800", r"w\ud800"), ("w\udcff", r"w\xff"), ("\u200b\ufeff", r"\u200b\ufeff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)  # fmt: skip
def test_what_cannot_be_printed_is_shown_as_its_number(text: str, shown: str) -> None:
    assert plain(text) == shown == plain(plain(text)) and plain(text).isprintable()
    for kind in (TrajcheckError, RunError):
        assert str(kind(text)) == shown == str(pickle.loads(pickle.dumps(kind(text))))


def test_a_line_has_a_bound_and_says_how_long_it_was() -> None:
    for letter in ("x", "\x1b", "\ud800"):
        assert len(plain(letter * 10**6)) <= LONGEST and "characters in all" in plain(letter * 10**6)
        assert len(str(RunError(letter * 10**6))) <= LONGEST
        assert all(len(plain(letter * 500, most)) <= most for most in range(130))
    assert plain("a" * 5000 + "end").endswith("end") and plain("start" + "a" * 5000).startswith("start")


def test_a_name_begins_no_line() -> None:
    assert plain("a\u00a0b\u3000c\n") == "a\u00a0b\u3000c\\n"  # blanks of any width stay
    assert in_lines(["a\nwarning: b", 1]) == "a\\nwarning: b\n1"
    assert one_line("  shapes\n\tdiffer\x1b[m") == r"shapes differ\x1b[m"

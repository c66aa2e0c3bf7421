"""Words in CSV: one cell whatever is in them, UTF-8, no formulas."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest

from trajcheck.reports.making.csv_text import cell, frame_text, rows_text

WORDS = ["a", "x\ry", "x\r\ny", "x\ny", 'q"u,o', "", " a", "ü", "a\u3000b"]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_one_cell(word: str) -> None:
    for text in (
        frame_text(pd.DataFrame({word: [word, "z"], "n": [1.5, np.nan]})),
        rows_text([word, "n"], [[word, 1]]),
    ):
        head, first = list(csv.reader(io.StringIO(text, newline="")))[:2]
        assert head[0] == first[0] == word and len(head) == len(first) == 2
        assert text.endswith("\n") and not text.endswith("\r\n")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("=1+1", "'=1+1"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"), ("@SUM(A1)", "'@SUM(A1)"), ("-x", "'-x"),
        ("\t=1", "'\t=1"), ("\r=1", "'\r=1"), (" =1", "' =1"), ("＝1", "'＝1"), ("-5", "-5"), ("+1e3", "+1e3"),
        ("a=1", "a=1"), ("w\x1b[m\u202e", r"w\x1b[m\u202e"), ("w\ud800", r"w\ud800"), ("w\udcff", r"w\xff"),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_or_utf8_does_not_take(word: str, shown: str) -> None:
    assert cell(word) == shown == next(csv.reader(io.StringIO(rows_text([word], []), newline="")))[0]
    read = pd.read_csv(io.BytesIO(frame_text(pd.DataFrame({"w": [word]})).encode()), dtype=str, skip_blank_lines=False)
    assert read["w"][0] == shown


def test_numbers_are_as_pandas_writes_them() -> None:
    frame = pd.DataFrame(
        {"a": [-1.5, np.nan], "b": pd.array([1, None], dtype="Int64"), "c": ["x", None], "d": [True, False]}
    )
    assert frame_text(frame) == frame.to_csv(index=False, lineterminator="\n")
    assert rows_text(["a"], [[-0.1], [None], [10**20], [True]]) == 'a\n-0.1\n""\n100000000000000000000\nTrue\n'

"""long_first.py: what it names is there."""

from __future__ import annotations

from long_first import LONGEST
from places import ROOT


def test_the_longest_files_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []
    assert len({*LONGEST}) == len(LONGEST)

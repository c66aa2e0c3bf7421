"""Where a file names another file of the house, there is one."""

from __future__ import annotations

import re
from pathlib import Path

from places import PACKAGE

#: Files of the user's, in examples, and of Python's own importlib.
EXAMPLES = {"train.py", "objectives.py", "FILE.py", "util.py"}


def test_files_that_are_named_are_there() -> None:
    there = {path.name for path in PACKAGE.rglob("*.py")} | EXAMPLES
    wrong = []
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.[ch]")]:
        named = set(re.findall(r"\b\w+\.py\b", path.read_text()))
        wrong += [f"{path.relative_to(PACKAGE)} names {name}" for name in sorted(named - there)]
    assert not wrong, "\n".join(wrong)


def test_what_a_test_says_it_is_about_is_there() -> None:
    tests = Path(__file__).parent
    there = {path.name for path in PACKAGE.parent.rglob("*.py")} | EXAMPLES
    wrong = []
    for path in tests.rglob("test_*.py"):
        first = path.read_text().partition("\n")[0]
        named = set(re.findall(r"\b\w+\.py\b", first))
        wrong += [f"{path.relative_to(tests)} names {name}" for name in sorted(named - there)]
    assert not wrong, "\n".join(wrong)

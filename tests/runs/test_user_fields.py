"""runs/user_fields.py: anybody's JSON as plain fields."""

from __future__ import annotations

import pytest

from trajcheck.runs.user_fields import LONGEST_TEXT, MOST_FIELDS, user_fields


def test_plain_fields_of_objects_within() -> None:
    said = {"lr": 0.1, "data": {"name": "digits", "split": {"seed": 3}}, "on": False, "words": "x" * 999}
    found = user_fields(said)
    assert found == {"lr": 0.1, "data.name": "digits", "data.split.seed": 3, "on": False, "words": found["words"]}
    assert len(str(found["words"])) == LONGEST_TEXT and "999 characters in all" in str(found["words"])


@pytest.mark.parametrize("value", [None, [1], float("nan"), float("inf"), 2**60, {"a": {"b": {"c": {"d": {"e": 1}}}}}])
def test_what_is_not_plain_is_no_field(value: object) -> None:
    assert user_fields({"x": value, "y": 1}) == {"y": 1}
    assert user_fields(value if not isinstance(value, dict) else []) == {}


def test_names_and_texts_are_cleaned_and_bounded() -> None:
    assert user_fields({"a\n\u202eb": "c\x07\ud800 d", "": 1, "n" * 99: 1}) == {r"a \u202eb": r"c\x07\ud800 d"}
    assert user_fields({"a\n": 1, "a": 2}) == {"a": 1}
    assert len(user_fields({str(n): n for n in range(MOST_FIELDS + 9)})) == MOST_FIELDS

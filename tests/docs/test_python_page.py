"""docs/python.md: every public name, every field of what functions return, every exception with its exit code."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
from documents import DOCS, section

import trajcheck
from trajcheck import errors
from trajcheck.errors import TrajcheckError
from trajcheck.recording.recorder import Recorder

PAGE = DOCS / "python.md"
EXCEPTIONS = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, TrajcheckError)]


def rows(heading: str) -> list[str]:
    return [line for line in section(PAGE, heading).splitlines() if line.startswith("| `")]


def test_every_public_name_is_there() -> None:
    named = {name for row in rows("Functions") + rows("Classes") for name in re.findall(r"trajcheck\.(\w+)", row)}
    assert set(trajcheck.__all__) == named


@pytest.mark.parametrize("name", ["Report", "Comparison", "FlowReport", "BatchResult"])
def test_the_fields_of_results_are_there(name: str) -> None:
    (row,) = (row for row in rows("Classes") if row.startswith(f"| `trajcheck.{name}`"))
    assert {field.name for field in dataclasses.fields(getattr(trajcheck, name))} <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("name", ["analyze", "compare", "flow", "batch", "draw_report", "draw_together"])
def test_the_signatures_are_true(name: str) -> None:
    """What is shown of a signature begins it, with its defaults."""
    (row,) = (row for row in rows("Functions") if row.startswith(f"| `trajcheck.{name}("))
    found = re.search(rf"{name}\((.*?)\)`", row)
    assert found
    shown = found[1].removesuffix(", ...")
    namespace: dict[str, object] = {}
    exec(f"def shown({shown}): pass", {}, namespace)
    parameters = inspect.signature(getattr(trajcheck, name)).parameters
    assert callable(namespace["shown"])
    for parameter in inspect.signature(namespace["shown"]).parameters.values():
        assert parameters[parameter.name].default == parameter.default, parameter


@pytest.mark.parametrize("exception", EXCEPTIONS, ids=lambda each: each.__name__)
def test_every_exception_and_its_exit_code_are_there(exception: type[TrajcheckError]) -> None:
    (row,) = (row for row in rows("Exceptions") if row.startswith(f"| `{exception.__name__}`"))
    if exception is TrajcheckError:
        return
    assert row.endswith(f"| {exception.exit_code} |")
    assert exception.__bases__[0] is TrajcheckError or f"`{exception.__bases__[0].__name__}`" in row


def test_every_exit_code_is_on_the_page_of_analyze() -> None:
    codes = re.findall(r"^\| ([\d, ]+) \|", section(DOCS / "analyze.md", "Exit codes"), re.MULTILINE)
    documented = {int(code) for each in codes for code in each.split(", ")}
    assert documented == {0, 1, 130, 141, 143} | {each.exit_code for each in EXCEPTIONS}


def test_every_option_of_the_recorder_is_on_its_page() -> None:
    table = section(DOCS / "record.md", "All options of Recorder")
    for name, parameter in inspect.signature(Recorder).parameters.items():
        given = name if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "objective" else f"{name}="
        assert f"`{given}`" in table, name

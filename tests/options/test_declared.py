"""trajcheck/options: an option is declared once, and the command line, Python and a batch's file have it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from places import PACKAGE
from typer.testing import CliRunner

import trajcheck
from trajcheck.cli import app
from trajcheck.cli.parameters import with_options
from trajcheck.commands.analyze.options import AnalyzeArguments
from trajcheck.commands.batch.config_file import read_config
from trajcheck.commands.batch.options import BatchConfig
from trajcheck.commands.compare.options import CompareArguments, ComparisonOptions
from trajcheck.commands.flow.options import FlowArguments, FlowOptions
from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options
from trajcheck.options.checks import among, at_least
from trajcheck.options.declared import Declared, Option, declarations
from trajcheck.options.python_call import REST, takes, takes_more

COMMANDS = {"analyze": AnalyzeArguments, "compare": CompareArguments, "flow": FlowArguments, "batch": BatchConfig}


@dataclass(frozen=True)
class Cooking(Declared):
    dish: Annotated[str, Option("What to cook.", "DISH", check=among(("soup", "stew"), "expected one of"))]
    _: KW_ONLY
    times: Annotated[int, Option("How often.", "N", check=at_least(1, "a number of times"))] = 2
    herbs: Annotated[Sequence[str], Option("Which herbs.", "HERB", flag="--herb", commas=True, python="herbs.")] = ()
    minutes: Annotated[Sequence[int], Option("When to stir.", reads=lambda text: tuple(map(int, text.split("-"))))] = ()
    lid: Annotated[bool, Option("With a lid.", after="dish")] = False
    quiet: Annotated[bool, "no noise."] = True


@dataclass(frozen=True)
class Guests:
    first: str
    _: KW_ONLY
    more: Annotated[Sequence[str], REST] = ()
    times: Annotated[int, Option("How often.")] = 1


def cook(*words: str) -> tuple[Cooking | None, str]:
    """What a command line of these options makes of some words, and what it prints."""
    made: list[Cooking] = []

    @with_options(Cooking)
    def command(*, said: Mapping[str, Any], loud: bool = False) -> None:
        made.append(Cooking(**said, quiet=not loud))

    here = typer.Typer(rich_markup_mode=None)
    here.command()(command)
    output = CliRunner().invoke(here, words).output
    return (made[0] if made else None), output


def test_the_command_line_makes_the_dataclass() -> None:
    assert cook("--dish", "soup")[0] == Cooking("soup")
    words = ("--dish", "stew", "--times", "3", "--herb", "basil, thyme", "--herb", "sage", "--minutes", "1-5", "--lid")
    expected = Cooking("stew", times=3, herbs=("basil", "thyme", "sage"), minutes=(1, 5), lid=True, quiet=False)
    assert cook(*words, "--loud")[0] == expected
    assert cook()[0] is None and "Missing option '--dish'" in cook()[1]


def test_help_shows_the_words_in_order_with_defaults() -> None:
    text = cook("--help")[1]
    places = [text.index(flag) for flag in ("--dish", "--lid", "--times", "--herb", "--minutes", "--loud")]
    assert places == sorted(places)
    assert "How often.  [default: 2]" in text and "What to cook.  [required]" in text
    assert "quiet" not in text


def test_what_takes_the_place_of_other_values_says_nothing_of_what_was_not_given() -> None:
    seen: list[Mapping[str, Any]] = []

    @with_options(BatchConfig, in_place=True)
    def command(*, said: Mapping[str, Any]) -> None:
        seen.append(said)

    here = typer.Typer(rich_markup_mode=None)
    here.command()(command)
    assert CliRunner().invoke(here, ["--timeout", "2m"]).exit_code == 0
    assert seen[0].pop("timeout") == 120  # type: ignore[attr-defined]
    assert not any(seen[0].values()) and seen[0]["runner"] is None


def test_python_has_the_signature_and_the_help() -> None:
    @takes(Cooking)
    def cooked(given: Cooking) -> Cooking:
        """Cook.

        Raises:
            UsageError: never.
        """
        return given

    parameters = inspect.signature(cooked).parameters
    assert [each.kind for each in parameters.values()] == [
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        *[inspect.Parameter.KEYWORD_ONLY] * 5,
    ]
    assert parameters["herbs"].annotation == Sequence[str] and parameters["times"].default == 2
    assert cooked("soup", herbs=["basil"]) == Cooking("soup", herbs=("basil",))
    text = cooked.__doc__ or ""
    assert text.index("        dish: What to cook.") < text.index("        herbs: herbs.") < text.index("Raises:")
    with pytest.raises(TypeError, match=r"cooked\(\): got an unexpected keyword argument 'salt'"):
        cooked("soup", salt=1)  # type: ignore[call-arg]


def test_further_positional_arguments() -> None:
    @takes_more(Guests)
    def invite(given: Guests) -> Guests:
        return given

    assert invite("a", "b", "c", times=2) == Guests("a", more=("b", "c"), times=2)
    assert str(inspect.signature(invite)) == "(first: str, *more: str, times: int = 1) -> 'Guests'"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Cooking("pie"), "--dish 'pie': expected one of soup, stew."),
        (Cooking("soup", times=0), "--times 0: expected a number of times, 1 or more."),
    ],
)
def test_a_value_is_checked_by_its_declaration(options: Cooking, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}$"):
        options.check_values()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_declared_option_is_one_of_the_command_line(command: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    flags = [opt for each in group.commands[command].params for opt in each.opts]
    assert all(flags.count(each.flag) == 1 for each in declarations(COMMANDS[command]))
    names = [field.name for field in fields(COMMANDS[command])]
    assert all(each.option.after in (*names, "") for each in declarations(COMMANDS[command]))


@pytest.mark.parametrize("kind", [Options, ComparisonOptions, FlowOptions])
def test_every_option_of_a_summary_is_declared(kind: type) -> None:
    assert [each.name for each in declarations(kind)] == [field.name for field in fields(kind)]


def test_every_option_of_an_analysis_is_a_key_of_a_file_of_a_batch(tmp_path: Path) -> None:
    values = {
        each.word: '["x"]'
        if each.several
        else '"x"'
        if each.type in (str, str | None)
        else "true"
        if each.type is bool
        else "5"
        for each in declarations(Options)
        if not each.option.check
    }
    path = tmp_path / "batch.toml"
    path.write_text("[options]\n" + "".join(f"{word} = {value}\n" for word, value in values.items()))
    with pytest.raises(UsageError, match="--memory"):
        read_config(path)
    path.write_text("[options]\n" + "".join(f"{each.word.replace('_', '-')} = []\n" for each in declarations(Options)))
    with pytest.raises(UsageError) as refused:
        read_config(path)
    assert "unknown" not in str(refused.value)


def test_neither_help_nor_a_batch_with_nothing_to_do_imports_numpy() -> None:
    code = (
        "import sys, trajcheck.cli, trajcheck.commands.batch.command\n"
        "trajcheck.commands.batch.command.BatchConfig().check()\n"
        "sys.exit(bool({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0


def test_options_are_kept_as_tuples_so_that_they_can_be_compared() -> None:
    assert Options(refs=["final", "init"], memory_lags=range(1, 3)) == Options(("final", "init"), memory_lags=(1, 2))
    assert asdict(Options())["refs"] == ("final",)


def types_of_calls() -> None:
    """Type checkers know the options; nobody calls this."""
    trajcheck.analyze("run", ["final"], "f.py:f", skip=2, out=Path("x"))
    trajcheck.analyze(run="run", skip="2")  # type: ignore[arg-type]
    trajcheck.analyze("run", skipp=2)  # type: ignore[call-arg]
    _ = trajcheck.flow("run").flow
    _ = trajcheck.flow("run", "f.py:f", rtol=1e-3).flow
    _ = trajcheck.compare("a", "b", align="time").pairs
    _ = trajcheck.compare("a", "b", "c", "d", align="time").pairs
    trajcheck.compare("a", "b", aligned="time")  # type: ignore[call-overload]

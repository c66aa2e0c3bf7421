"""Every command has its page, and the page every option; what pages say of options is true."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import typer
from documents import DOCS, README, code_words

from trajcheck.cli import app
from trajcheck.commands.batch.options import BatchConfig

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, typer.core.TyperGroup)
COMMANDS = GROUP.commands

#: The pages of commands that are not called as they are.
PAGES = {"report": "figures"}


def page_of(command: str) -> Path:
    return DOCS / f"{PAGES.get(command, command)}.md"


def options_of(command: str) -> set[str]:
    found = {"--help"}
    for parameter in COMMANDS[command].params:
        if isinstance(parameter, click.Option) or parameter.param_type_name == "option":
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def said(page: Path) -> set[str]:
    """The options that a page names in code."""
    return {
        option for word in code_words(page.read_text()) for option in re.findall(r"(?<![\w>-])--?[a-z][\w-]*", word)
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_on_the_page(command: str) -> None:
    missing = options_of(command) - said(page_of(command)) - {"--help"}
    assert not missing, f"{page_of(command).name}: {sorted(missing)}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme_and_on_its_page(command: str) -> None:
    assert f"[`trajcheck {command} " in README.read_text()
    assert f"trajcheck {command} " in page_of(command).read_text()


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.stem)
def test_the_options_that_pages_name_are_there(page: Path) -> None:
    every = {option for command in COMMANDS for option in options_of(command)} | {"--version", "--debug"}
    others = {"-m", "-n", "-x", "-k", "-q", "--strict", "--require-hashes"}  # of python, pytest, mkdocs
    assert said(page) <= every | others, f"{page.name}: {sorted(said(page) - every - others)}"


def test_what_the_file_of_a_batch_takes_is_on_its_page() -> None:
    words = {word for each in code_words((DOCS / "batch.md").read_text()) for word in re.findall(r"[a-z][\w-]*", each)}
    keys = set(BatchConfig.__dataclass_fields__) - {"options", "overrides"}
    assert {key.replace("_", "-") for key in keys} <= {word.replace("_", "-") for word in words}

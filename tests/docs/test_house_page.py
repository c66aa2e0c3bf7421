"""docs/house.md: the floors are those that are asserted, and what its recipes show works as if it were there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from documents import DOCS, blocks, code_words, section
from places import SAMPLES
from saved_reports import analysis
from typer.testing import CliRunner

from tests.test_layers import FLOORS

PAGE = DOCS / "house.md"
EXAMPLES = {block.notes["example"]: block for block in blocks(PAGE) if "example" in block.notes}


def test_the_floors_are_those_that_are_asserted() -> None:
    (picture,) = (block.text for block in blocks(PAGE) if block.text.startswith("cli"))
    shown = [set(line.partition("#")[0].split()) for line in picture.splitlines()]
    every = [set(rooms) for rooms in FLOORS if "__init__" not in rooms]
    assert shown == every[::-1]


def test_every_room_is_explained() -> None:
    rooms = {room.partition(".")[0] for rooms in FLOORS for room in rooms} - {"__init__", "__main__"}
    ground = {"errors", "version", "readable", "progress_bar"}
    assert rooms - ground == set(re.findall(r"^\| `(\w+)` \|", section(PAGE, "The floors"), re.MULTILINE))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The recipes' examples as modules of the package."""
    names = {"command": "trajcheck.commands.weights.command", "command line": "trajcheck.cli.weights"}
    made = {}
    for example, name in names.items():
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name.rpartition(".")[0], sys.modules.get(name.rpartition(".")[0], module))
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(EXAMPLES[example].text, str(EXAMPLES[example]), "exec"), module.__dict__)
        made[example] = module
    yield made


def test_the_command_of_the_recipe(pretended: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    app = typer.Typer(rich_markup_mode=None)
    app.command("weights")(pretended["command line"].weights_command)
    app.callback()(lambda: None)
    monkeypatch.chdir(SAMPLES.parent)
    command, _, shown = EXAMPLES["output"].text.removeprefix("$ trajcheck ").partition("\n")
    assert CliRunner().invoke(app, command.split()).stdout == shown
    assert "--largest" in CliRunner().invoke(app, ["weights", "--help"]).stdout


def test_the_figure_of_the_recipe(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from trajcheck.reports.figures.catalogue import PICTURES
    from trajcheck.reports.figures.picture import NothingToDraw
    from trajcheck.reports.reading.report import read_report

    names: dict[str, object] = {"__name__": "figure"}
    exec(compile(EXAMPLES["figure"].text, str(EXAMPLES["figure"]), "exec"), names)
    picture = names["PICTURE"]
    assert isinstance(picture, type(PICTURES["analysis"][0]))
    assert picture.draw(read_report(analysis(tmp_path / "full"))).axes
    assert picture.place not in {each.place for each in PICTURES["analysis"]}
    with pytest.raises(NothingToDraw):
        picture.draw(read_report(analysis(tmp_path / "empty", change={"update_dot_ref": None})))


def test_files_that_recipes_name_are_there_or_are_to_be_made() -> None:
    """A path with a word in capitals, or of the examples, is to be made by whoever follows the recipe."""
    paths = [word for word in code_words(PAGE.read_text()) if word.startswith(("trajcheck/", "tests/", "docs/"))]
    assert len(paths) > 10
    for path in paths:
        made = re.search("NAME|weights", path)
        assert made or (DOCS.parent / path).exists(), path

"""docs/house.md: the floors are those that are asserted, and what its recipes show works as if it were there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from documents import DOCS, blocks, code_words, section
from handwritten import write_objective, write_run
from places import SAMPLES
from quadratics import Quadratic, descend
from safetensors.numpy import save_file
from saved_reports import analysis
from typer.testing import CliRunner

import trajcheck
from tests.test_layers import FLOORS
from trajcheck.runs.formats import recognise

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
    import_module("trajcheck.cli.printing")  # so that its folder is a package, whatever ran before

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


def test_the_quantity_and_the_assumption_of_the_recipes(tmp_path: Path) -> None:
    """Towards the minimum of a quadratic it is what one writes down, at most the distance, and what is made of it."""
    quadratic = Quadratic(np.diag([0.5, 2.0]))
    records = descend(quadratic, np.array([1.0, 1.0]), [np.zeros((3, 2))] * 12, [0.1] * 12)
    run = write_run(tmp_path / "run", records)
    objective = write_objective(tmp_path / "objective.py", quadratic, {"x": (2,)})
    save_file({"x": np.zeros(2)}, tmp_path / "minimum.safetensors")
    script = f"""
import sys
from types import ModuleType
from trajcheck.metrics import catalogue
catalogue.MODULES += ("recipe",)
module = sys.modules["trajcheck.metrics.formulas.recipe"] = ModuleType("trajcheck.metrics.formulas.recipe")
exec({EXAMPLES["quantity"].text!r}, module.__dict__)
from trajcheck.metrics.assumptions import catalogue
catalogue.MODULES += ("recipe",)
module = sys.modules["trajcheck.metrics.assumptions.recipe"] = ModuleType("trajcheck.metrics.assumptions.recipe")
exec({EXAMPLES["assumption"].text!r}, module.__dict__)
import trajcheck
report = trajcheck.analyze({str(run)!r}, ["minimum.safetensors"], {objective!r}, out="report")
report.references["descent_length"].to_csv("found.csv", index=False)
report.assumptions.to_csv("ledger.csv", index=False)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "found.csv", skip_blank_lines=False)["descent_length"].to_numpy()
    x = np.array([record.x for record in records[:-1]])
    above, slope = (x**2 * [0.5, 2.0]).sum(1) / 2, ((x * [0.5, 2.0]) ** 2).sum(1) ** 0.5
    np.testing.assert_allclose(found[:-1], above / slope, rtol=1e-9)
    assert np.isnan(found[-1]) and (found[:-1] < (x**2).sum(1) ** 0.5).all()
    ledger = pd.read_csv(tmp_path / "ledger.csv").set_index("assumption")
    assert ledger.loc["dominated", "constant"] == pytest.approx((slope / above).min(), rel=1e-9)
    assert ledger.loc["dominated", "satisfied":"worst_step"].isna().all() and ledger.loc["dominated", "rows"] == 12


def test_the_option_of_the_recipe() -> None:
    """The lines in a dataclass of options are an option of the command line, of Python and of a file."""
    import typer

    from trajcheck.cli.parameters import with_options
    from trajcheck.errors import UsageError
    from trajcheck.measuring import options
    from trajcheck.options.declared import declarations

    names = {**vars(options), "__name__": options.__name__}
    text = "@dataclass(frozen=True, kw_only=True)\nclass More(Options):\n" + indent(EXAMPLES["option"].text, "    ")
    exec(compile(text, str(EXAMPLES["option"]), "exec"), names)
    made: list[Any] = []

    @with_options(names["More"])
    def command(*, said: Mapping[str, Any]) -> None:
        made.append(names["More"](**said))

    app = typer.Typer(rich_markup_mode=None)
    app.command()(command)
    assert CliRunner().invoke(app, ["--beta", "0.9", "--skip", "2"]).exit_code == 0
    assert CliRunner().invoke(app, ["--beta", "2"]).exit_code == 0
    assert (made[0].beta, made[0].skip) == (0.9, 2) and "beta" in [each.word for each in declarations(names["More"])]
    with pytest.raises(UsageError, match="--beta 2: expected a number from 0 to 1"):
        made[1].check()
    assert "[default: 0.99]" in CliRunner().invoke(app, ["--help"]).stdout


def test_the_format_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk of known lengths, in a layout that nobody else knows."""
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(EXAMPLES["format"].text, str(EXAMPLES["format"]), "exec"), names)
    monkeypatch.setattr(recognise, "FORMATS", (*recognise.FORMATS, names["WeightFolders"]))
    for step in (0, 5, 10):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
        save_file({"w": np.array([3.0 * step, 4.0 * step])}, tmp_path / f"run/checkpoint-{step}/model.safetensors")
    report = trajcheck.analyze(tmp_path / "run", ["init"], out=tmp_path / "report")
    assert report.steps["step"].tolist() == [0, 5, 10]
    assert report.references["ref_dist"].tolist() == [0.0, 25.0, 50.0]
    assert not trajcheck.verify(tmp_path / "run").damaged


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
        made = re.search("NAME|weights|growth", path)
        assert made or (DOCS.parent / path).exists(), path

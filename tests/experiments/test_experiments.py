"""experiments/: the smallest of each runs to its rows, and README.md is what the kept reports say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import drawing, making, recipe, table
from experiments.__main__ import main
from experiments.claims.catalogue import CLAIMS
from experiments.claims.claim import (
    ABSENT,
    NO,
    OPEN,
    UNDECIDED,
    YES,
    Cell,
    Claim,
    above,
    below,
    bounded,
    differs,
    every,
    halves,
    told,
    verdict,
    within_two,
)
from experiments.measured import Measured, Value, over
from experiments.recipe import Training
from experiments.table import FIGURES, README, shown, with_table

NAMES = recipe.names()


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_runs_from_its_trainings_to_its_rows(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    drawn: list[Path] = []
    monkeypatch.setattr(making, "_draw", drawn.append)  # figures have tests of their own, and take seconds
    monkeypatch.setattr(making, "draw_figure", lambda figure, reports, out: None)
    assert main([name, "--smallest", "--out", str(tmp_path), "--workers", "1"]) == 0
    place = tmp_path / "smallest" / name
    found = recipe.load(name, "smallest")
    assert {each.name for each in found.trainings} == {path.name for path in (place / "runs").iterdir()}
    assert place / "reports" / found.trainings[0].name in drawn
    rows = (place / "table.md").read_text()
    for claim in CLAIMS:
        assert (f"| [{claim.key}]" in rows) == (name in claim.recipes)
        if name in claim.recipes:
            (numbers,) = [part for part in rows.split("### ")[1:] if part.startswith(claim.key)]
            assert f"| {found.trainings[0].cell} | " in numbers, claim.key
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file() and path.name != "table.md"}
    capsys.readouterr()
    assert main([name, "--smallest", "--out", str(tmp_path)]) == 0
    assert f"{name}: {len(found.trainings)} trainings, 0 runs and reports made" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_table_of_the_readme_is_what_the_kept_reports_say() -> None:
    text = README.read_text()
    assert with_table(text, table.table(table.kept())) == text, "python -m experiments --keep makes it anew"


def test_every_claim_has_a_row_and_every_picture_is_there() -> None:
    text = README.read_text()
    for claim in CLAIMS:
        assert f"| [{claim.key}](#{claim.key.lower()}) |" in text and f"### {claim.key}\n" in text
        assert all((FIGURES / f"{name}.png").stat().st_size < 80_000 for name, _ in claim.figures), claim.key
    assert [claim.key for claim in CLAIMS] == list(dict.fromkeys(claim.key for claim in CLAIMS))


@pytest.mark.parametrize("size", recipe.SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_names_tell_the_trainings_of_a_recipe_apart(name: str, size: str) -> None:
    trainings = recipe.load(name, size).trainings
    assert len({each.name for each in trainings}) == len({each.print for each in trainings}) == len(trainings) > 0


def test_other_runs_are_of_the_same_cell() -> None:
    found = recipe.load("images", "small")
    first = next(each for each in found.trainings if each.seeds == (0, 0))
    other, again = found.other(first, "other-seed"), found.other(first, "same-init")
    assert other is not None and other.seeds == (1, 1) and other.cell == first.cell
    assert again is not None and again.seeds == (0, 3) and again.cell == first.cell
    alone = replace(found, trainings=(first,))
    assert alone.other(first, "other-seed") is None and alone.other(first, "same-init") is None


def test_a_number_is_shown_to_two_digits_of_its_error() -> None:
    assert shown(Value(0.18712, 0.0123, 3, 3)) == "0.187(12)"
    assert shown(Value(-71.3, 2.34, 3, 3)) == "-71.3(23)"
    assert shown(Value(1234.5, 67.0, 3, 3)) == "1234(67)"
    assert shown(Value(4.19, np.nan, 1, 1)) == shown(Value(4.19, 0.0, 3, 3)) == "4.19"
    assert shown(Value(3.2e-7, 1.1e-8, 3, 3)) == "3.20(11)e-7"
    assert shown(Value(np.nan, np.nan, 0, 3)) == ""


def test_means_have_the_error_of_the_mean_and_say_of_how_many_they_are() -> None:
    assert over([1.0, 2.0, 3.0, np.nan]) == (2.0, pytest.approx(1 / np.sqrt(3)), 3, 4, 0)
    assert over([1.0, 3.0, np.inf, np.nan]) == (2.0, pytest.approx(1.0), 2, 4, 1)
    assert over([5.0]).runs == 1 and np.isnan(over([5.0]).error)
    assert not over([np.nan]).measured and over([np.inf]).measured


def test_within_two_errors_nothing_is_decided() -> None:
    assert above(over([1.0, 1.1, 1.2]), 0) == YES and above(over([-1.0, -1.1, -1.2]), 0) == NO
    assert above(over([-1.0, 2.0]), 0) == OPEN and above(None, 0) == above(over([np.nan]), 0) == ABSENT
    assert below(over([-1.0, -1.1]), 0) == YES and below(over([-1.0, 2.0]), 0) == OPEN
    assert above(over([1.0, 1.0]), 1) == NO  # without an error, equal is not above
    assert every(YES, OPEN) == OPEN and every(OPEN, NO) == NO and every(YES, YES) == YES and every(ABSENT) == ABSENT
    assert differs(over([2.0, 2.1]), over([1.0, 1.1])) == YES and differs(over([2.0]), over([1.0, 1.1])) == OPEN


def test_one_training_or_the_surviving_ones_decide_nothing_in_favour() -> None:
    assert above(over([5.0]), 0) == OPEN
    survivors = over([5.0, 5.1, 5.2, np.nan])
    assert above(survivors, 0) == OPEN and above(survivors, 9) == NO
    assert bounded(over([2.0, 2.1, np.inf]), 10) == NO and bounded(over([2.0, 2.1, 2.2]), 10) == YES


def test_a_total_follows_a_change_between_half_and_twice_of_it() -> None:
    def of(*pairs: tuple[float, float]) -> str:
        numbers = [halves("x", total, change) for total, change in pairs]
        return within_two("x")({label: over([each[label] for each in numbers]) for label in numbers[0]})

    assert of((-2.0, -2.1), (-2.1, -2.0)) == YES and of((2.0, 2.1), (2.1, 2.0)) == YES
    assert of((16.0, -2.7), (17.0, -3.0)) == NO and of((-0.5, -2.0), (-0.6, -2.1)) == NO
    assert of((-169.0, 3.0), (-150.0, -8.0)) == NO  # whatever the sign of the change
    assert of((-1.0, -2.1), (-1.2, -2.1)) == OPEN


def test_a_verdict_counts_the_cells_in_which_each_part_holds(tmp_path: Path) -> None:
    training = Training(data="digits", model="mlp", optimizer="sgd", rate=0.1, steps=1, batch=1)

    def of(**answers: str) -> str:
        claim = Claim("X", "", (), "", lambda run: {}, {part: lambda values: "" for part in answers}, "")
        split = {part: given.split() for part, given in answers.items()}
        count = max(len(given) for given in split.values())
        at = [{part: (given[i] if i < len(given) else ABSENT) for part, given in split.items()} for i in range(count)]
        return verdict(claim, [Cell(training, {}, each) for each in at])

    assert of(own="yes yes", probe="yes") == YES and of(own="open") == UNDECIDED
    assert of(own="yes no", probe="yes open") == "**in part**<br>own: 1 of 2<br>probe: 1 of 2 (1 open)"
    assert of(own="no", probe="open no") == "**no**<br>own: 0 of 1<br>probe: 0 of 2 (1 open)"
    assert of(own="yes open") == "**yes where decided**<br>own: 1 of 2 (1 open)"
    assert (
        told({"a": YES, "b": NO, "c": OPEN, "d": ABSENT}) == "no: b. open: c" and told({"a": YES, "b": ABSENT}) == YES
    )
    assert Measured(training, tmp_path).steps("cos").empty


def test_a_figure_shows_the_rows_and_columns_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/summary.json").write_text("{}")
    (tmp_path / "report/steps.csv").write_text("step,sample,a,b\n0,own,1,2\n0,previous,3,4\n")
    (tmp_path / "report/references.csv").write_text("step,sample,ref,a\n0,own,final,\n0,own,init,3\n0,full,final,5\n")
    shown = drawing.restricted(
        recipe.Figure(where={}, name="x", picture="cosine", without=("b",)), tmp_path / "report", tmp_path / "of"
    )
    assert (shown / "steps.csv").read_text() == "step,sample,a\n0,own,1\n"
    assert (shown / "references.csv").read_text() == "step,sample,ref,a\n0,own,final,\n"


def test_what_was_not_run_stands_under_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text()
    for name in NAMES:
        assert f"- {name}, `--full`, " in text
        assert all(f"- {name}, {each.what}: {each.why}." in text for each in recipe.load(name, "small").not_run)
    runs = table.kept()["language"][1:]
    lines = list(table._not_run("language", runs))
    assert lines[0].startswith("language: 1 of the 8 trainings of `--small`, interrupted: transformer_1m-adamw-b16")


def test_what_is_not_an_experiment_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tzc"])
    assert stopped.value.code == 2 and "tzc: no such experiment; there are edge-of-stability" in capsys.readouterr().err
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in NAMES)

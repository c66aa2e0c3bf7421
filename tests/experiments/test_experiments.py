"""experiments/: the smallest of each runs to its rows, and README.md is what the kept reports say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import making, recipe, table
from experiments.__main__ import main
from experiments.claims.catalogue import CLAIMS
from experiments.claims.claim import AGREES, NOT, UNDECIDED, Cell, Claim, above, below, every, verdict
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
        assert claim.figure is None or (FIGURES / f"{claim.figure[0]}.png").is_file()
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
    assert shown(Value(0.18712, 0.0123, 3)) == "0.187(12)"
    assert shown(Value(-71.3, 2.34, 3)) == "-71.3(23)"
    assert shown(Value(1234.5, 67.0, 3)) == "1234(67)"
    assert shown(Value(4.19, np.nan, 1)) == shown(Value(4.19, 0.0, 3)) == "4.19"
    assert shown(Value(3.2e-7, 1.1e-8, 3)) == "3.20(11)e-7"
    assert shown(Value(np.nan, np.nan, 0)) == ""


def test_means_have_the_error_of_the_mean() -> None:
    assert over([1.0, 2.0, 3.0, np.nan]) == (2.0, pytest.approx(1 / np.sqrt(3)), 3)
    assert over([5.0]).runs == 1 and np.isnan(over([5.0]).error) and over([np.nan]).runs == 0


def test_within_two_errors_nothing_is_decided() -> None:
    assert above(Value(1.0, 0.4, 3), 0) is True and above(Value(-1.0, 0.4, 3), 0) is False
    assert above(Value(0.5, 0.4, 3), 0) is None and above(None, 0) is None and above(over([]), 0) is None
    assert below(Value(-1.0, 0.4, 3), 0) is True and below(Value(0.1, 0.4, 3), 0) is None
    assert every(True, None) is None and every(None, False) is False and every(True, True) is True


def test_a_verdict_counts_the_cells_that_are_decided(tmp_path: Path) -> None:
    training = Training(data="digits", model="mlp", optimizer="sgd", rate=0.1, steps=1, batch=1)

    def of(*answers: bool | None) -> str:
        claim = Claim("X", "", (), "", lambda run: {}, lambda values: None, "")
        return verdict(claim, [Cell(training, {}, answer) for answer in answers])

    assert (
        of(True, None) == AGREES and of(False) == NOT and of(None) == UNDECIDED and of(True, False) == "in part: 1 of 2"
    )
    assert Measured(training, tmp_path).steps("cos").empty


def test_what_is_not_an_experiment_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tzc"])
    assert stopped.value.code == 2 and "tzc: no such experiment; there are edge-of-stability" in capsys.readouterr().err
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in NAMES)

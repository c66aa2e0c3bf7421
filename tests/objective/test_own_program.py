"""Where no objective is named the run's own program is taken; one that cannot be used does not stand in the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from places import SAMPLES

import trajcheck
from trajcheck.commands.analyze.command import run_analysis
from trajcheck.commands.analyze.time_estimate import estimate_time
from trajcheck.commands.batch.command import batch
from trajcheck.commands.batch.options import BatchConfig
from trajcheck.commands.batch.tasks import chunk_tasks, measure_chunk, report_task
from trajcheck.commands.compare.command import estimate_comparison
from trajcheck.commands.compare.options import ComparisonOptions
from trajcheck.commands.flow.command import estimate_flow
from trajcheck.commands.flow.options import FlowOptions
from trajcheck.errors import ObjectiveError, UsageError
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.objective.program.stored import checksum
from trajcheck.scalars.saved import FOLDER
from trajcheck.scalars.saved.store import save

DIGITS, OTHER = SAMPLES / "digits-sgd-seed0", SAMPLES / "digits-sgd-seed1"

#: Few rows.
FEW: dict[str, Any] = {"steps": ":3"}


@pytest.mark.parametrize(
    ("given", "objective", "by_default"),
    [
        ({}, "run", True),
        ({"metrics": ("geometry",)}, None, False),
        ({"metrics": ("convexity",)}, "run", False),
        ({"sample": ("probe",)}, "run", False),
        ({"curvature": 40}, "run", False),
        ({"replay_dtype": "float64"}, "run", False),
        ({"objective": "objectives.py:f", "sample": ("probe",)}, "objectives.py:f", False),
        ({"objective": "none"}, None, False),
    ],
)
def test_which_is_taken(given: dict[str, Any], objective: str | None, by_default: bool) -> None:
    found = MeasuredRun(DIGITS, Options(**given), quiet=True)
    assert (found.options.objective, found.choice.by_default) == (objective, by_default)


def test_a_report_is_that_of_the_program_by_name(tmp_path: Path) -> None:
    usual = trajcheck.analyze(DIGITS, **FEW, out=tmp_path / "usual")
    named = trajcheck.analyze(DIGITS, objective="run", **FEW, out=tmp_path / "named")
    assert usual.summary["options"] == named.summary["options"] and usual.summary["warnings"] == []
    assert usual.references["convexity_ratio"].notna().any()
    assert_frame_equal(usual.steps, named.steps, check_exact=True)
    assert_frame_equal(usual.references, named.references, check_exact=True)
    none = trajcheck.analyze(DIGITS, objective="none", **FEW, out=tmp_path / "none")
    assert none.summary["replay"] is None and none.summary["warnings"] == [] and not none.incomplete
    assert "convexity_ratio" not in none.references


# -- programs that cannot be used -------------------------------------------------------------------------------------


def _of_another_format(facts: dict[str, Any]) -> None:
    facts["format"] = 7


def _with_a_wrong_checksum(facts: dict[str, Any]) -> None:
    facts["torch"] = "0.1"


def _of_another_loss(facts: dict[str, Any]) -> None:
    facts["reference"]["loss"] *= 1.5
    facts["checksum"] = checksum(facts)


def _of_an_unknown_operator(facts: dict[str, Any]) -> None:
    next(node for node in facts["nodes"] if node["op"].startswith("aten."))["op"] = "aten.from_file.default"
    facts["checksum"] = checksum(facts)


WRONG = [
    (_of_another_format, "its format is 7; this trajcheck reads format 1"),
    (_with_a_wrong_checksum, "its checksum is wrong"),
    (_of_another_loss, "when it was exported"),
    (_of_an_unknown_operator, "aten.from_file.default"),
]


@pytest.fixture
def spoilt(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """A copy of a run whose program was changed."""

    def make(change: Callable[[dict[str, Any]], None]) -> Path:
        run = Path(shutil.copytree(DIGITS, tmp_path / "runs" / "spoilt"))
        facts = json.loads((run / "objective.json").read_text())
        change(facts)
        (run / "objective.json").write_text(json.dumps(facts))
        return run

    return make


@pytest.mark.parametrize(("change", "why"), WRONG)
def test_the_report_is_made_without_losses_and_says_why(
    spoilt: Callable[..., Path], tmp_path: Path, change: Any, why: str
) -> None:
    run = spoilt(change)
    report = trajcheck.analyze(run, **FEW, out=tmp_path / "report")
    [warning] = [each for each in report.summary["warnings"] if "no losses were replayed" in each]
    assert "the run's own program (objective.json) is not used" in warning and why in warning
    assert not report.incomplete and report.summary["options"]["objective"] is None
    plain = trajcheck.analyze(DIGITS, objective="none", **FEW, out=tmp_path / "plain")
    assert_frame_equal(report.steps, plain.steps, check_exact=True)
    for asked in ({"objective": "run"}, {"sample": ("probe",)}, {"metrics": ("convexity",)}):
        with pytest.raises(ObjectiveError, match=why):
            trajcheck.analyze(run, **asked, **FEW, out=tmp_path / "never")
    assert why in " ".join(str(estimate_time(run, Options(**FEW), clock=iter(range(10**6)).__next__)).split())


def test_a_program_that_is_not_the_training_is_not_taken_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("trajcheck.reports.making.warnings.UNLIKE", -1.0)  # no replay is like its training then
    report = trajcheck.analyze(DIGITS, **FEW, out=tmp_path / "report")
    assert report.summary["replay"] is None and not report.incomplete
    assert any("is not used" in each and "not the training" in each for each in report.summary["warnings"])
    named = trajcheck.analyze(DIGITS, objective="run", **FEW, out=tmp_path / "named")
    assert "not the training" in named.incomplete[0]


def test_rows_none_of_which_has_a_sample() -> None:
    found = MeasuredRun(DIGITS, Options(steps="120:"), quiet=True)  # where the training ended
    assert found.options.objective is None and found.choice.warning.endswith(found.rows.rows[0].no_sample)
    assert MeasuredRun(DIGITS, Options(objective="run", steps="120:"), quiet=True).options.objective == "run"


# -- the other commands -----------------------------------------------------------------------------------------------


def test_compare(spoilt: Callable[..., Path], tmp_path: Path) -> None:
    by_name = trajcheck.compare(DIGITS, OTHER, objective="run", line=1, **FEW, out=tmp_path / "named")
    usual = trajcheck.compare(DIGITS, OTHER, line=1, **FEW, out=tmp_path / "usual")
    assert_frame_equal(usual.pairs, by_name.pairs, check_exact=True)
    assert trajcheck.compare(DIGITS, OTHER, **FEW, out=tmp_path / "nine").summary["line"]["points"][1] == 0.1
    without = trajcheck.compare(DIGITS, OTHER, objective="none", **FEW, out=tmp_path / "without")
    assert without.summary["line"] is None and without.summary["warnings"] == []
    wrong = spoilt(_of_another_loss)
    for runs in ((wrong, OTHER), (DIGITS, wrong)):
        found = trajcheck.compare(*runs, **FEW, out=tmp_path / runs[0].name)
        assert any("is not used" in each and "when it was exported" in each for each in found.summary["warnings"])
        assert (found.pairs["dist"] == (without.pairs["dist"] if OTHER in runs else 0.0)).all()
        with pytest.raises(ObjectiveError, match="when it was exported"):
            trajcheck.compare(*runs, objective="run", **FEW, out=tmp_path / "never")
    (wrong / "objective.json").unlink()
    found = trajcheck.compare(DIGITS, wrong, **FEW, out=tmp_path / "lacking")
    assert any("has none" in each for each in found.summary["warnings"])


def test_what_compare_takes() -> None:
    runs = [DIGITS, OTHER]
    with_line = estimate_comparison(runs, ComparisonOptions(line=3, steps=":3"))
    assert with_line == estimate_comparison(runs, ComparisonOptions(objective="run", line=3, steps=":3"))
    assert "--objective none leaves losses out" in str(estimate_comparison(runs, ComparisonOptions()))
    with pytest.raises(UsageError, match="--match-permutations needs --objective"):
        estimate_comparison(runs, ComparisonOptions(match_permutations=True))


def test_flow(plain_run: Path) -> None:
    run = SAMPLES / "breast-cancer-gd"
    assert estimate_flow(run, FlowOptions()) == estimate_flow(run, FlowOptions("run"))
    for folder, named in ((plain_run, None), (run, "none")):
        with pytest.raises(UsageError, match="a flow needs the loss"):
            estimate_flow(folder, FlowOptions(named))


def test_batch(spoilt: Callable[..., Path], plain_run: Path, tmp_path: Path) -> None:
    wrong = spoilt(_of_another_loss)
    shutil.copytree(DIGITS, wrong.parent / "whole")
    shutil.copytree(plain_run, wrong.parent / "without")
    options = Options(**FEW)

    def index(options: Options) -> pd.DataFrame:
        config = BatchConfig(options=options, plots=False)
        batch([wrong.parent], tmp_path / "out", config)
        return pd.read_csv(tmp_path / "out" / "index.csv").drop_duplicates("run").set_index("run")

    rows = index(options)
    assert list(rows["status"]) == ["done"] * 3
    ratios = {str(run).rsplit("/", 1)[-1]: value for run, value in rows["convexity_ratio"].items()}
    assert pd.notna(ratios["whole"]) and pd.isna(ratios["spoilt"]) and pd.isna(ratios["without"])
    assert batch([wrong.parent], tmp_path / "out", BatchConfig(options=options, plots=False)).unchanged == 3
    rows = index(Options(sample=("previous",), **FEW))
    assert sorted(rows["status"]) == ["done", "failed", "failed"]
    failed = " ".join(rows["message"].dropna())
    assert "no program of its own lies in" in failed and "when it was exported" in failed


def test_chunks_of_a_batch(spoilt: Callable[..., Path], tmp_path: Path) -> None:
    run = spoilt(_of_another_loss)
    (tmp_path / "out").mkdir()
    settings = {"deep": False, "plots": False, "interval": 0.0, "rows": 2}
    for chunk in chunk_tasks(report_task(run, tmp_path / "out", Options(**FEW), settings)):
        save(tmp_path / "out" / FOLDER, measure_chunk(chunk))
    report = run_analysis(run, Options(**FEW), tmp_path / "out")
    assert report.summary["scalars"] == {"computed": 0, "reused": 3}
    with pytest.raises(ObjectiveError, match="when it was exported"):
        [chunk] = chunk_tasks(report_task(run, tmp_path / "out", Options(objective="run", steps=":1"), settings))
        measure_chunk(chunk)


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_long_replay_is_said_beforehand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trajcheck.analyze(DIGITS, **FEW, out=tmp_path / "short", quiet=False)
    assert capsys.readouterr().err == ""  # it takes no time
    monkeypatch.setattr("trajcheck.measuring.which_objective.LONG", 0.0)
    trajcheck.analyze(DIGITS, objective="run", **FEW, out=tmp_path / "named", quiet=False)
    trajcheck.analyze(DIGITS, **FEW, out=tmp_path / "quiet")
    assert capsys.readouterr().err == ""  # it was asked for; nobody looks
    trajcheck.analyze(DIGITS, **FEW, out=tmp_path / "usual", quiet=False)
    said = capsys.readouterr().err
    assert "replaying the run's own program" in said and "about" in said and "--objective none leaves" in said
    trajcheck.analyze(DIGITS, **FEW, out=tmp_path / "usual", quiet=False)
    assert capsys.readouterr().err == ""  # all of it was saved
    trajcheck.compare(DIGITS, OTHER, **FEW, out=tmp_path / "compare", quiet=False)
    assert "replaying the run's own program" in capsys.readouterr().err


def test_a_run_without_a_program(plain_run: Path) -> None:
    found = MeasuredRun(plain_run, Options(), quiet=True)
    assert found.options.objective is None and found.choice.warning == ""
    with pytest.raises(
        UsageError, match=r"--curvature needs --objective FILE.py:NAME: .* no program of its own lies in"
    ):
        MeasuredRun(plain_run, Options(curvature=40), quiet=True)

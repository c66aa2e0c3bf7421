"""Where losses are asked for and no objective is named, the run's own program is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from places import SAMPLES

import trajcheck
from trajcheck.commands.compare.command import estimate_comparison
from trajcheck.commands.compare.options import ComparisonOptions
from trajcheck.errors import UsageError
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options

DIGITS = SAMPLES / "digits-sgd-seed0"


@pytest.mark.parametrize(
    ("given", "objective"),
    [
        ({}, None),
        ({"metrics": ("geometry",)}, None),
        ({"metrics": ("convexity",)}, "run"),
        ({"sample": ("probe",)}, "run"),
        ({"curvature": 40}, "run"),
        ({"replay_dtype": "float64"}, "run"),
        ({"objective": "objectives.py:f", "sample": ("probe",)}, "objectives.py:f"),
    ],
)
def test_analyze(given: dict[str, Any], objective: str | None) -> None:
    assert MeasuredRun(DIGITS, Options(**given), quiet=True).options.objective == objective


def test_a_report_of_it(tmp_path: Path) -> None:
    report = trajcheck.analyze(DIGITS, sample=["probe"], steps=":3", out=tmp_path / "report")
    assert report.summary["options"]["objective"] == "run" and report.references["convexity_ratio"].notna().any()


def test_compare() -> None:
    runs = [DIGITS, SAMPLES / "digits-sgd-seed1"]
    with_line = estimate_comparison(runs, ComparisonOptions(line=3, steps=":3"))
    assert with_line == estimate_comparison(runs, ComparisonOptions(objective="run", line=3, steps=":3"))
    with pytest.raises(UsageError, match="--match-permutations needs --objective"):
        estimate_comparison(runs, ComparisonOptions(match_permutations=True))


def test_a_run_without_a_program(plain_run: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--curvature needs --objective FILE.py:NAME: .* no program of its own lies in"
    ):
        MeasuredRun(plain_run, Options(curvature=40), quiet=True)

"""trajcheck/reports/terminal and cli/printing.py: what the commands print."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from places import SAMPLES
from plain_run_files import Outcome

from trajcheck.reports.making.headline import NO_RATIO
from trajcheck.reports.quantities.headline import headline_tables, legend
from trajcheck.reports.terminal.analysis import _tables
from trajcheck.reports.terminal.formats import headline_rows, printed
from trajcheck.reports.terminal.layout import WIDTH, fitted

RUNS = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
GRADIENT_DESCENT = SAMPLES / "breast-cancer-gd"
Cli = Callable[..., Outcome]


@pytest.fixture(params=["analyze", "compare", "flow"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[object]:
    objective = f"{SAMPLES / 'objectives.py'}:breast_cancer"
    return {
        "analyze": (
            "analyze",
            RUNS[0],
            "--ref",
            "final",
            "--ref",
            RUNS[1],
            "--objective",
            "none",
            "--steps",
            ":9",
            "--out",
            tmp_path / "r",
        ),
        "compare": ("compare", *RUNS, "--objective", "none", "--steps", ":9", "--out", tmp_path / "r"),
        "flow": ("flow", GRADIENT_DESCENT, "--objective", objective, "--rtol", "1e-2", "--out", tmp_path / "r"),
    }[request.param]


def test_json_csv_and_markdown_say_the_same_and_nothing_else(
    cli: Cli, command: Sequence[object], tmp_path: Path
) -> None:
    outcomes = {name: cli(*command, "--format", name) for name in ("json", "csv", "markdown")}
    assert all(outcome.code == 0 for outcome in outcomes.values()), outcomes
    saved = json.loads((tmp_path / "r" / "summary.json").read_text())
    told = json.loads(outcomes["json"].out)
    assert told.pop("report") == str(tmp_path / "r")
    assert told["headline"] == saved["headline"] and told == {name: saved[name] for name in told}
    rows = headline_rows(saved)
    read = list(csv.DictReader(io.StringIO(outcomes["csv"].out)))
    assert len(read) == len(rows) and list(read[0]) == list(rows[0])
    for row, expected in zip(read, rows, strict=True):
        for name, value in expected.items():
            assert row[name] == "" if value is None else type(value)(row[name]) == value or row[name] == str(value)
    lines = outcomes["markdown"].out.splitlines()
    assert len(lines) == len(rows) + 2 and all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert {line.count("|") for line in lines} == {len(rows[0]) + 1}
    for name in ("csv", "markdown"):
        assert outcomes[name].err.count("warning: ") == len(saved["warnings"])
    assert outcomes["json"].err == ""


def test_an_unknown_format_is_refused_before_anything_is_done(
    cli: Cli, command: Sequence[object], tmp_path: Path
) -> None:
    outcome = cli(*command, "--format", "xml")
    assert outcome.code == 2 and "--format 'xml': expected one of table, json, csv, markdown" in outcome.err
    assert not (tmp_path / "r").exists()


def test_quiet_prints_nothing_in_any_format(cli: Cli, tmp_path: Path) -> None:
    assert cli(
        "analyze", RUNS[0], "--objective", "none", "--steps", ":5", "--out", tmp_path / "r", "--format", "json", "-q"
    ) == (0, "", "")


def test_names_with_bars_stay_one_cell() -> None:
    summary = {"runs": [], "headline": {"a|b\nc": {"dist": 0.25, "pairs": 3, "nested": {"x": None}}}, "warnings": []}
    text = printed("markdown", Path("r"), summary, lambda: "")
    assert text.splitlines()[-1] == r"| a\|b\\nc | 0.25 | 3 | - |" and "nested_x" in text


@pytest.mark.parametrize("run", sorted(path.name for path in SAMPLES.iterdir() if (path / "run.json").exists()))
def test_the_table_fits_the_line(cli: Cli, run: str, tmp_path: Path) -> None:
    """Whatever the reference is called; paths are printed whole, in lines of their own."""
    point = tmp_path / ("a-long-name-" * 9)
    point.symlink_to(SAMPLES / run)
    refs = ["--ref", point, "--ref", f"{point}@init", "--ref", "mean:3"]
    outcome = cli("analyze", SAMPLES / run, *refs, "--objective", "none", "--out", tmp_path / "r")
    assert outcome.code == 0
    long = [line for line in outcome.out.splitlines() if len(line) > WIDTH]
    assert all(line.startswith(("run        ", str(tmp_path))) for line in long)
    assert sum(line.startswith("...") for line in outcome.out.splitlines()) == 4  # two references in two tables


def test_digits_make_room_where_numbers_are_long() -> None:
    def rows(digits: int) -> list[tuple[str, ...]]:
        return [("x" * 99, *([f"{-1.23456e-10:.{digits}g}"] * 7)), ("name", *(["1"] * 7))]

    widths = [len(line) for line in fitted(rows)]
    assert max(widths) <= WIDTH and fitted(rows)[0].endswith("-1.2e-10")
    assert fitted(lambda digits: [("a", f"{0.123456:.{digits}g}")]) == ["a         0.123"]


def test_extreme_headlines_fit_too() -> None:
    """With errors of all kinds that a sample can have."""
    shares = {"convex": 1.0, "not_convex": 1.0, "undetermined": 1.0}
    values: dict[str, Any] = {"cosine": -1.234e-5, "cosine_error": 1.234e-5, "cosine_of": "cos", "shares": shares}
    values |= {f"convexity_{name}": -1.234e-10 for name in ("ratio", "num", "den")} | {"shares_error": shares}
    probe = {**values, "cosine_se": 1.2e-5, "cosine_error": None, "convexity_of": "convexity_ratio_controlled"}
    probe |= {f"convexity_{name}{end}": 1.234e-10 for name in ("ratio", "num", "den") for end in ("_se", "_rows_se")}
    probe |= {f"loss_change_sum{end}": 1.234e-10 for end in ("", "_se", "_rows_se")} | {"loss_change_known": 1e-10}
    one, other = ({"references": {"some/run": each}, "previous": each} for each in (values, probe))
    lines = _tables({"samples": {"own": one, "previous": one, "probe": other}, **one})
    assert len(lines) > 15 and max(map(len, lines)) <= WIDTH


def test_a_column_of_errors_is_of_one_kind_and_beside_its_value() -> None:
    nothing: dict[str, Any] = {"shares": None, "shares_error": None, "cosine": None, "cosine_of": None}
    ratio = {"convexity_ratio": 1.5, "convexity_num": 3.0, "convexity_den": 2.0, "convexity_of": "convexity_ratio"}
    own = {**nothing, **ratio, "convexity_ratio_rows_se": 0.25, "cosine": 0.5, "cosine_error": 0.125}
    probe = {**nothing, **ratio, "convexity_ratio_se": 0.5, "cosine": 0.25, "cosine_se": 0.0625, "cosine_of": "cos"}
    samples = {
        name: {"references": {"final": each}, "previous": nothing | NO_RATIO}
        for name, each in (("own", own), ("probe", probe))
    }
    first, on_own, on_probe = headline_tables({"samples": samples, "references": samples["own"]["references"]})
    assert first.heads == ("reference", "sample", "cosine", "path", "batch", "convex", "not", "?")
    assert [row[2:5] for row in first.rows[:2]] == [("0.5", "0.12", "-"), ("0.25*", "-", "0.062")]
    assert on_own.heads == ("on own", "ratio", "steps", "num", "den") and on_own.rows[0][:3] == (
        "final",
        "1.5*",
        "0.25",
    )
    assert on_probe.heads[:3] == ("on probe", "ratio", "batch") and on_probe.rows[1] == ("x_(t-1)", *("-" * 4))
    terms = dict(legend({"headline": {"samples": samples, **samples["own"]}, "run": {"skip": 1, "plain_sgd": False}}))
    assert set(terms) == {"cosine*", "ratio*", "convex", "path", "batch", "steps"} and "momentum" in terms["steps"]

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

from trajcheck.reports.terminal.formats import headline_rows, printed
from trajcheck.reports.terminal.layout import WIDTH, fitted

RUNS = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
GRADIENT_DESCENT = SAMPLES / "breast-cancer-gd"
Cli = Callable[..., Outcome]


@pytest.fixture(params=["analyze", "compare", "flow"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[object]:
    objective = f"{SAMPLES / 'objectives.py'}:breast_cancer"
    return {
        "analyze": ("analyze", RUNS[0], "--ref", "final", "--ref", RUNS[1], "--steps", ":9", "--out", tmp_path / "r"),
        "compare": ("compare", *RUNS, "--steps", ":9", "--out", tmp_path / "r"),
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
    assert cli("analyze", RUNS[0], "--steps", ":5", "--out", tmp_path / "r", "--format", "json", "-q") == (0, "", "")


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
    outcome = cli("analyze", SAMPLES / run, *refs, "--out", tmp_path / "r")
    assert outcome.code == 0
    long = [line for line in outcome.out.splitlines() if len(line) > WIDTH]
    assert all(line.startswith(("run        ", str(tmp_path))) for line in long)
    assert sum(line.startswith("...") for line in outcome.out.splitlines()) == 2


def test_digits_make_room_where_numbers_are_long() -> None:
    def rows(digits: int) -> list[tuple[str, ...]]:
        return [("x" * 99, *([f"{-1.23456e-10:.{digits}g}"] * 7)), ("name", *(["1"] * 7))]

    widths = [len(line) for line in fitted(rows)]
    assert max(widths) <= WIDTH and fitted(rows)[0].endswith("-1.2e-10")
    assert fitted(lambda digits: [("a", f"{0.123456:.{digits}g}")]) == ["a         0.123"]


def test_extreme_headlines_fit_too() -> None:
    from trajcheck.reports.terminal.analysis import _table

    values: dict[str, Any] = {"cosine": -1.234e-5, "cosine_error": 1.234e-5, "cosine_of": "cos"}
    values |= {f"convexity_{name}": -1.234e-10 for name in ("ratio", "num", "den")}
    values["shares"] = {"convex": 1.0, "not_convex": 1.0, "undetermined": 1.0}
    one = {"references": {"some/run": values}, "previous": values}
    head = {"samples": {"own": one, "previous": one, "probe": one}, **one}
    assert max(len(line) for line in fitted(lambda digits: _table(head, digits))) <= WIDTH

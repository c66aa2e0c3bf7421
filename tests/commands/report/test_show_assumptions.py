"""--show assumptions: the ledger on the terminal, of an analysis and of saved reports, and on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from places import SAMPLES
from plain_run_files import Outcome

from trajcheck.metrics.assumptions.catalogue import assumptions
from trajcheck.reports.page.facts import assumptions_section
from trajcheck.reports.quantities.ledger import Ledger, percent
from trajcheck.reports.reading.report import read_report
from trajcheck.reports.terminal.layout import WIDTH
from trajcheck.reports.terminal.ledger import ledger_text

RUN = str(SAMPLES / "digits-sgd-seed0")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import trajcheck

    folder = tmp_path_factory.mktemp("ledger") / "report"
    return trajcheck.analyze(RUN, objective="run", steps=":12", out=folder, replay_dtype="float32").folder


def test_the_text_is_aligned_and_has_a_sentence_for_every_assumption(report: Path) -> None:
    saved = read_report(report)
    ledger = Ledger(saved.tables["assumptions"], saved.undefined)
    text = ledger_text(ledger, "some/run")
    assert max(map(len, text.splitlines())) <= WIDTH
    words = " ".join(text.split())
    for (_, name), one in assumptions().items():
        assert f"{one.title}:" in words and f"{name} " in text
    assert "of 12 rows along this path, on own samples; this says nothing of points off the path" in words
    assert "no verdict on own samples: the square of a minibatch's gradient holds that of its noise" in words
    assert "L-smoothness between x_t and y: no verdict on own samples: needs the gradient at the reference" in words


def test_every_empty_cell_has_its_reason(report: Path) -> None:
    saved = read_report(report)
    ledger = Ledger(saved.tables["assumptions"], saved.undefined)
    empty = [(row, name) for row in ledger.records for name, cell in row.items() if cell is None]
    assert len(empty) > 20 and all(ledger.why(row, name) for row, name in empty)


def test_of_a_saved_report_and_of_an_analysis(report: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    shown = cli("report", str(report), "--show", "assumptions")
    assert shown.code == 0 and "\nquasar " in shown.out and not (report / "report.html").exists()
    again = cli(
        *("analyze", RUN, "--objective", "none", "--steps", ":12", "--out", str(tmp_path / "r"), "--no-plots"),
        *("--show", "assumptions", "--format", "json"),
    )
    told = json.loads(again.out)
    assert {row["assumption"] for row in told["assumptions"]} == {name for _, name in assumptions()}
    frame = pd.read_csv(tmp_path / "r" / "assumptions.csv")
    rsi = frame[frame["assumption"] == "rsi"].iloc[0]
    assert rsi["rows"] == 12 and rsi["satisfied"] + rsi["violated"] + rsi["undetermined"] == pytest.approx(1)


def test_other_options_beside_it_and_other_names_are_refused(report: Path, cli: Callable[..., Outcome]) -> None:
    for words in (("--show", "x"), ("--show", "assumptions", "--format", "png")):
        refused = cli("report", str(report), *words)
        assert refused.code == 2 and "--show" in refused.err


def test_the_page_has_the_same_sentences(report: Path) -> None:
    section = assumptions_section(read_report(report))
    assert section.count("<table>") == 2 and "says nothing of points off the path" in section
    assert "&lt;g_t, x_t - x*&gt;" in section


def test_a_share_that_is_not_all_is_not_shown_as_all() -> None:
    assert [percent(share) for share in (0.0, 1.0, 0.9999, 0.99996, 0.5, 0.042, None)] == [
        *("0%", "100%", "99.99%", ">99.9%", "50%", "4.2%", "-")
    ]

"""commands/batch/common_figures.py: figures of a batch's runs, drawn when a report has changed and not otherwise."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")

from index_rows import done
from saved_reports import analysis

from trajcheck.commands.batch.command import batch
from trajcheck.commands.batch.common_figures import MADE_FROM, MOST, draw_across, pages_across, runs_across
from trajcheck.commands.batch.lock import only_batch
from trajcheck.commands.batch.options import BatchConfig
from trajcheck.commands.batch.page import document
from trajcheck.commands.report import several_reports as drawing_together
from trajcheck.commands.report.one_report import DrawnReport
from trajcheck.reports.figures.drawing import style


def row(out: Path, name: str, parameters: Any = 31) -> dict[str, Any]:
    analysis(out / name, rows=3, run={"path": f"runs/{name}", "id": name})
    return done(f"runs/{name}", report=name, parameters=parameters)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The report folders of every call of draw_together, which draws nothing but an empty page."""
    found: list[list[str]] = []

    def draw(reports: list[Path], out: Path, **more: Any) -> DrawnReport:
        found.append([report.name for report in reports])
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.html").write_text(" ".join(more["notes"]))
        return DrawnReport(out / "report.html", [], {})

    monkeypatch.setattr(drawing_together, "draw_together", draw)
    return found


def test_sets_are_of_as_many_parameters_and_have_reports(tmp_path: Path) -> None:
    rows = [done("a", report="a"), done("b", report="b", parameters=9), done("c", report="c"), done("d")]
    rows += [
        done("e", report="e", parameters="many"),
        done("f", report="f", parameters=9),
        done("g", report="g", parameters=7),
    ]
    found = runs_across(tmp_path, rows)
    assert [(each.name, each.reports) for each in found] == [
        ("across/9-parameters", ("b", "f")),
        ("across/1210-parameters", ("a", "c")),
    ]


def test_drawn_again_when_a_report_has_changed_and_not_otherwise(tmp_path: Path, calls: list[list[str]]) -> None:
    rows = [row(tmp_path, name) for name in ("a", "b")]
    with only_batch(tmp_path):
        for _ in range(2):
            draw_across(tmp_path, rows, None)
            assert calls == [["a", "b"]]
        assert list(pages_across(tmp_path, rows)) == [("2 runs of 31 parameters", "across/31-parameters/report.html")]
        os.utime(tmp_path / "b" / "steps.csv", ns=(1, 1))
        assert list(pages_across(tmp_path, rows)) == []
        draw_across(tmp_path, rows, None)
        assert len(calls) == 2
        rows.append(row(tmp_path, "c"))
        draw_across(tmp_path, rows, None)
        assert calls[2:] == [["a", "b", "c"]]
        (tmp_path / "across" / "31-parameters" / MADE_FROM).write_text("{")
        draw_across(tmp_path, rows, None)
        assert len(calls) == 4


def test_no_plots_draws_nothing_and_links_what_still_holds(tmp_path: Path, calls: list[list[str]]) -> None:
    rows = [row(tmp_path, name) for name in ("a", "b")]
    with only_batch(tmp_path):
        draw_across(tmp_path, rows, False)
        assert calls == [] and not list(pages_across(tmp_path, rows))
        draw_across(tmp_path, rows, True)
    page = document(tmp_path, rows, list(pages_across(tmp_path, rows)))
    assert 'Drawn together: <a href="./across/31-parameters/report.html">2 runs of 31 parameters</a>.' in page
    assert "Drawn together" not in document(tmp_path, rows)


def test_of_many_runs_the_first_are_drawn_and_the_others_counted(tmp_path: Path, calls: list[list[str]]) -> None:
    assert MOST == style.MOST
    rows = [row(tmp_path, f"run{n}") for n in range(MOST + 3)]
    with only_batch(tmp_path):
        draw_across(tmp_path, rows, None)
    assert calls == [[f"run{n}" for n in range(MOST)]]
    ((words, place),) = pages_across(tmp_path, rows)
    assert words == "7 of 10 runs of 31 parameters"
    assert (tmp_path / place).read_text() == "3 more runs of as many parameters: the first 7 are drawn."


def test_a_report_that_cannot_be_drawn_is_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(tmp_path, name) for name in ("a", "b", "c", "d")]
    rows[2]["parameters"] = rows[3]["parameters"] = 32
    (tmp_path / "a" / "steps.csv").write_text("")
    with only_batch(tmp_path), caplog.at_level(logging.WARNING):
        draw_across(tmp_path, rows, None)
    assert "31-parameters" in caplog.text and "steps.csv: cannot be read" in caplog.text
    assert [place for _, place in pages_across(tmp_path, rows)] == ["across/32-parameters/report.html"]


def test_a_bug_of_a_figure_does_not_cost_the_index(
    plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    for name in ("one", "two"):
        shutil.copytree(plain_run, archive / name)
    batch([archive], out, BatchConfig(plots=False))
    monkeypatch.setattr(drawing_together, "draw_together", lambda *_, **__: 1 / 0)
    (out / "index.html").unlink()
    assert batch([archive], out, BatchConfig(plots=True)).unchanged == 2
    assert "ZeroDivisionError" in caplog.text and "Drawn together" not in (out / "index.html").read_text()


def test_a_batch_draws_them_once(plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    for name in ("one", "two"):
        shutil.copytree(plain_run, archive / name)
    batch([archive], out, BatchConfig(plots=True))
    (page,) = out.glob("across/*/report.html")
    assert page.relative_to(out).as_posix() in (out / "index.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
    monkeypatch.setattr(drawing_together, "draw_together", None)
    assert batch([archive], out, BatchConfig(plots=True)).unchanged == 2
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before

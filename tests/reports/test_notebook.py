"""A report as the value of a notebook's cell, and its figures by name."""

from __future__ import annotations

import base64
import json
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from places import SAMPLES
from saved_reports import analysis

import trajcheck
from trajcheck.errors import BadInputError, UsageError
from trajcheck.reports import extras
from trajcheck.reports.making.results import Report
from trajcheck.reports.reading.report import read_report

NASTY = "<script>alert(1)</script>\"'&"


def report(folder: Path, **more: object) -> Report:
    """A report in memory, as analyze returns it."""
    saved = read_report(analysis(folder, **more))  # type: ignore[arg-type]
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in ("steps", "references", "assumptions")}
    return Report(
        folder, tables["steps"], tables["references"], tables["assumptions"], saved.undefined, dict(saved.summary)
    )


class Tags(HTMLParser):
    """What a cell holds; it must close what it opens."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []
        self.sources: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_shows_its_headline_and_one_figure(tmp_path: Path) -> None:
    html = report(tmp_path / "r", refs=("final", NASTY), warnings=[f"mind {NASTY}"])._repr_html_()
    tags = Tags(html)
    assert tags.found.count("table") == 2 and tags.found.count("img") == 1 and "script" not in tags.found
    assert "&lt;script&gt;" in html and "mind &lt;script&gt;" in html and "final" in html
    (source,) = tags.sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_it_needs_nothing_of_its_folder(tmp_path: Path) -> None:
    made = report(tmp_path / "r")
    for path in (tmp_path / "r").iterdir():
        path.unlink()
    assert "<img" in made._repr_html_() and isinstance(made.plot("cosine"), Figure)


def test_without_the_extra_there_is_the_table_and_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = report(tmp_path / "r")
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    html = made._repr_html_()
    assert "<table" in html and "<img" not in html and "pip install &#x27;trajcheck[plots]&#x27;" in html
    with pytest.raises(UsageError, match=re.escape("pip install 'trajcheck[plots]'")):
        made.plot("cosine")


def test_where_nothing_can_be_drawn_the_reasons_are_given(tmp_path: Path) -> None:
    html = report(tmp_path / "r", only=())._repr_html_()
    assert "<table" in html and "<img" not in html and "the report has no cos" in html


def test_figures_by_name(tmp_path: Path) -> None:
    values = np.linspace(0.2, 0.6, 40)
    made = report(tmp_path / "r", change={"cos": values, "cos_skip": None, "lambda_max": None})
    figure = made.plot("cosine")
    assert any(np.array_equal(np.asarray(each.get_ydata(), float), values) for each in figure.axes[0].lines)
    assert figure.__dict__["_repr_png_"]().startswith(b"\x89PNG")
    assert isinstance(pickle.loads(pickle.dumps(figure)), Figure)
    with pytest.raises(UsageError, match="no figure 'nope' of this report; there are cosine, convexity_ratio"):
        made.plot("nope")
    with pytest.raises(BadInputError, match="sharpness: has nothing to draw: the Hessian was not asked for"):
        made.plot("sharpness")


def test_what_analyze_compare_and_flow_return(tmp_path: Path) -> None:
    runs = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
    objective = f"{SAMPLES / 'objectives.py'}:breast_cancer"
    every = (
        (trajcheck.analyze(runs[0], objective="none", steps="0:5", layers=True, out=tmp_path / "a"), "cosine"),
        (trajcheck.compare(*runs, objective="none", steps="0:5", align="time", out=tmp_path / "c"), "between_runs"),
        (trajcheck.flow(SAMPLES / "breast-cancer-gd", objective, rtol=1e-1, out=tmp_path / "f"), "flow"),
    )
    for made, name in every:
        tags = Tags(made._repr_html_())
        assert tags.found.count("img") == 1
        figure = made.plot(name)
        saved = read_report(made.folder)
        again = made._saved()
        assert again.kind == saved.kind and json.loads(json.dumps(again.summary)) == saved.summary
        for table, frame in saved.tables.items():
            pd.testing.assert_frame_equal(again.tables[table], frame, check_dtype=False, rtol=1e-12)
        assert figure.axes[0].lines

"""trajcheck/reports/page: what the page says, that names cannot break it, and what it weighs."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")

from saved_reports import NO_CONVEXITY, NO_COSINE, analysis, dependence, summary, write_report

from trajcheck.reports.figures.render import Drawn
from trajcheck.reports.page.document import document
from trajcheck.reports.page.other_sentences import comparison_words, flow_words
from trajcheck.reports.page.sentences import analysis_words
from trajcheck.reports.page.series import DIGITS, pack, rounded
from trajcheck.reports.reading.report import read_report

NASTY = "</script><script>alert(1)</script>\"'&<!--<img src=x onerror=alert(2)>"
COSINE: dict[str, Any] = {"cosine": 0.25, "cosine_error": 0.02, "cosine_of": "cos_skip", "cosine_sample": "own"}
RATIO: dict[str, Any] = {
    "convexity_of": "convexity_ratio",
    "convexity_ratio": 1.5,
    "convexity_num": 3.0,
    "convexity_den": 2.0,
    "shares": {"convex": 0.9, "not_convex": 0.08, "undetermined": 0.02},
}


class Tags(HTMLParser):
    """Every element with its attributes, and the text of each kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self._open, []).append(data)


def page_of(folder: Path) -> str:
    return document(read_report(folder), Drawn())


def beside_the_library(page: str) -> str:
    return re.sub(r'(<script type="text/plain" id="library">)[^<]*', r"\1", page)


def head(ref: str, sample: str = "own", **values: Any) -> dict[str, Any]:
    """A headline of one sample."""
    return {
        "sample": sample,
        "previous": {**NO_COSINE, **NO_CONVEXITY},
        "references": {ref: {"dependence": dependence(ref), **NO_COSINE, **NO_CONVEXITY, **values}},
    }


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    about = summary([NASTY])
    about["run"]["path"] = about["warnings"] = NASTY
    folder = analysis(tmp_path / "r", [NASTY], rows=4)
    (folder / "summary.json").write_text(json.dumps({**about, "warnings": [NASTY], "incomplete": [NASTY]}))
    page = page_of(folder)
    plain = page_of(analysis(tmp_path / "plain", ["final"], rows=4, warnings=["w"], incomplete=["i"]))
    found, expected = Tags(page), Tags(plain)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in expected.tags]
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]
    assert NASTY not in page and "alert(2)&gt;" in page
    meta = json.loads(next(words for words in found.words["script"] if words.startswith('{"lengths"')))
    assert meta["quantities"][0]["lines"][0]["ref"] == NASTY


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = beside_the_library(page_of(analysis(tmp_path / "r", rows=4)))
    assert re.findall(r"https?://[^\s\"'<]*", page) == ["http://www.w3.org/2000/svg"]  # a namespace, in page.js
    for tag, attrs in Tags(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert tag == "img" or "src" not in attrs, (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#")
        assert (attrs.get("src") or "data:").startswith("data:")
    policy = next(attrs["content"] for tag, attrs in Tags(page).tags if attrs.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-") and "'unsafe-inline'; img" in policy


def test_a_long_run_weighs_less_than_3_megabytes(tmp_path: Path) -> None:
    """The worst case: noise in every column, which cannot be packed."""
    folder = analysis(tmp_path / "r", [f"step:{n}" for n in range(5)], rows=5000)
    page = page_of(folder)
    assert 1_000_000 < len(beside_the_library(page)) < 2_300_000  # figures take 0.7 MB more
    assert "Columns without room in the interactive chart" in page and "references.csv: implied_rate" in page


def unpacked(folder: Path) -> tuple[dict[str, Any], list[list[float]]]:
    """What the page's script makes of the packed columns."""
    packed = pack(read_report(folder))
    data, start, arrays = zlib.decompress(base64.b64decode(packed.data)), 0, []
    for length in packed.meta["lengths"]:
        planes = data[start : start + 8 * length]
        arrays.append([struct.unpack("<d", planes[i::length])[0] for i in range(length)])
        start += 8 * length
    assert start == len(data)
    return packed.meta, arrays


def test_packed_columns_are_the_columns(tmp_path: Path) -> None:
    folder = analysis(
        tmp_path / "r", ("final", "init"), rows=30, change={"cos": np.r_[np.nan, np.geomspace(1e-200, 1, 29)]}
    )
    meta, arrays = unpacked(folder)
    report = read_report(folder)
    assert [entry["column"] for entry in meta["quantities"]][:2] == ["cos", "cos_skip"]
    for entry in meta["quantities"]:
        for each in entry["lines"]:
            keys = {"sample": each["sample"], **({"ref": each["ref"]} if each["ref"] else {})}
            series = report.series(entry["table"], entry["column"], **keys)
            np.testing.assert_allclose(arrays[each["y"]], series.values, rtol=2.0 ** -(DIGITS + 1))
            assert arrays[each["step"]] == list(range(30))
            np.testing.assert_array_equal(arrays[each["tau"]], 0.1 * np.arange(30))
    assert meta["thin"] == 1


def test_rounding_keeps_what_is_not_a_number_and_does_not_overflow() -> None:
    values = np.array([np.nan, 0.0, -0.0, 1.7976931348623157e308, -5e-324, 1 / 3])
    found = rounded(values)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()
    np.testing.assert_allclose(found[1:], values[1:], rtol=2.0**-DIGITS, atol=1e-310)


def test_very_long_runs_are_thinned_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trajcheck.reports.page.series.MOST_ROWS", 10)
    meta, arrays = unpacked(analysis(tmp_path / "r", rows=25))
    assert meta["thin"] == 3 and arrays[meta["quantities"][0]["lines"][0]["step"]] == list(range(0, 25, 3))


def sentences(folder: Path) -> tuple[str, dict[str, str]]:
    words = analysis_words(read_report(folder))
    return " ".join(line for lines in words.said.values() for line in lines), words.unsaid


def test_the_cosine_is_said_with_sample_error_and_noise_floor(tmp_path: Path) -> None:
    change = {"cos": 0.5, "cos_floor": 0.125, "cos_skip": 0.25}
    folder = analysis(tmp_path / "r", change=change, headline=head("final", **COSINE))
    said, _ = sentences(folder)
    assert "is 0.25 ± 0.02 (standard error) in the mean over the run, on each step's own batch" in said
    assert "with it 0.5, of which noise alone would give 0.125" in said
    assert "lead towards it on average" in said


@pytest.mark.parametrize(
    ("values", "about", "reason"),
    [
        ({"cosine_error": None}, {}, "its standard error is not known"),
        ({"cosine_sample": "previous"}, {}, "biased"),
        ({"cosine": None, "cosine_missing": "Adam carries a gradient on"}, {}, "Adam carries a gradient on"),
    ],
)
def test_where_something_is_not_known_there_is_no_sentence(
    tmp_path: Path, values: dict[str, Any], about: dict[str, Any], reason: str
) -> None:
    run = {"path": "runs/some", "id": "made-up", "optimizer": "Adam", "plain_sgd": True, **about}
    folder = analysis(tmp_path / "r", headline=head("final", **{**COSINE, **values}), run=run)
    said, unsaid = sentences(folder)
    assert "cosine" not in said and reason in unsaid["Towards final, the cosine"]


def test_a_cosine_within_its_error_is_not_called_one(tmp_path: Path) -> None:
    said, _ = sentences(analysis(tmp_path / "r", headline=head("final", **{**COSINE, "cosine": -0.03})))
    assert "no direction towards or away from it is found" in said


def test_convexity_is_said_with_shares_and_what_was_left_out_of_its_numerator(tmp_path: Path) -> None:
    free: dict[str, Any] = {**RATIO, "convexity_of": "convexity_ratio_skip", "convexity_num_error": 0.25}
    said, _ = sentences(analysis(tmp_path / "r", rows=10, headline=head("final", **free)))
    assert "holds on 90% of the steps, fails on 8%, and is undetermined on 2%" in said
    assert (
        "is 3 ± 0.25 (along the path) (the steps' own terms, which noise gives too, are left out), the left 2" in said
    )
    assert "their ratio 1.5; it is no test of convexity: what each step gained is left out too" in said
    reason = "Adam carries a gradient on"
    without = head("final", **{**RATIO, "convexity_ratio": None, "convexity_num": None, "convexity_missing": reason})
    assert sentences(analysis(tmp_path / "s", headline=without))[1]["Towards final, convexity"] == reason


def test_each_error_is_said_with_its_kind(tmp_path: Path) -> None:
    errors = {"convexity_ratio_se": 0.03, "convexity_ratio_rows_se": 0.4}
    said, _ = sentences(
        analysis(tmp_path / "r", samples=("probe",), headline=head("final", "probe", **RATIO, **errors))
    )
    assert "their ratio 1.5 ± 0.03 (over batches) ± 0.4 (choice of steps); " in said
    assert "1 is within two standard errors" in said  # 0.5 of 2 * 0.401


def test_the_direction_of_the_inequality_follows_the_denominator(tmp_path: Path) -> None:
    turned: dict[str, Any] = {**RATIO, "convexity_ratio": -1.5, "convexity_den": -2.0}
    free = {"cos_skip": None}
    said, _ = sentences(analysis(tmp_path / "a", change=free, headline=head("init", **turned), refs=["init"]))
    assert "convexity asks for at most 1, the left being negative: it is so" in said
    low: dict[str, Any] = {**RATIO, "convexity_ratio": 0.5}
    said, _ = sentences(analysis(tmp_path / "b", change=free, headline=head("init", **low), refs=["init"]))
    assert "convexity asks for at least 1: it is not" in said
    none: dict[str, Any] = {**RATIO, "convexity_ratio": None}
    said, _ = sentences(analysis(tmp_path / "c", change=free, headline=head("init", **none), refs=["init"]))
    assert "below its resolution or within its errors, so that there is no ratio" in said


def test_on_probe_batches_the_error_decides(tmp_path: Path) -> None:
    for error, words in ((0.3, "1 is within two standard errors"), (0.2, "it is so")):
        values = {**RATIO, "convexity_ratio_se": error}
        folder = analysis(tmp_path / f"{error}", samples=("probe",), headline=head("final", "probe", **values))
        assert f"{words}." in sentences(folder)[0]


def test_a_comparison_in_words(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"run_a": "a", "run_b": "b", "step_a": [0, 5], "step_b": [0, 5], "barrier_resolution": 1e-6})
    values = {"step_a": 5, "step_b": 5, "dist": 2.0, "relative_dist": 0.5, "displacement_cos": 0.9}
    about = {
        **summary([]),
        "runs": [],
        "inits": {"b": {"one": True, "text": "both runs start from the same numbers"}},
        "line": {"points": [0, 0.5, 1], "sample": "own"},
        "headline": {"b": {**values, "max_barrier": 0.25, "max_barrier_step_a": 5}},
    }
    report = read_report(write_report(tmp_path / "r", {"compare": frame}, about))
    first, second = comparison_words(report).said["b"]
    assert "the two are 2 apart, 0.5 times the larger" in first and "both runs start from the same numbers" in first
    assert (
        "at 1 points, on the batch of a's record, the loss rises at most 0.25 (one batch: no standard error)" in second
    )
    about["headline"]["b"]["max_barrier"] = 1e-7
    report = read_report(write_report(tmp_path / "r", {"compare": frame}, about))
    assert (
        "nowhere rises above the line between its ends by more than rounding" in comparison_words(report).said["b"][1]
    )


def test_a_flow_in_words(tmp_path: Path) -> None:
    import pandas as pd

    values = {"max_flow_dist": 0.5, "max_flow_dist_step": 3, "relative_there": 0.1, "max_flow_error": 1e-5}
    about = {**summary([]), "flow": {"sample": "full"}, "headline": {**values, "wanted": None}}
    frame = pd.DataFrame({"step": [0, 3], "flow_dist": [0.0, 0.5]})
    words = flow_words(read_report(write_report(tmp_path / "r", {"flow": frame}, about)))
    (said,) = words.said["Distance to gradient flow"]
    assert "On sample full" in said and "at step 3: 0.5, 0.1 of its distance from the start" in said and "1e-5" in said

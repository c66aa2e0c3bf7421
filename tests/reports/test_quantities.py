"""reports/quantities: one row a reference and sample, against plain numpy on the tables of a real analysis."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from saved_reports import analysis

import trajcheck
from trajcheck.reports.quantities.catalogue import in_order, value_of_error
from trajcheck.reports.quantities.fields import below_common, parts
from trajcheck.reports.quantities.rows import QuantityRow, quantity_rows
from trajcheck.reports.reading.report import read_report

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = ROOT / "sample_checkpoints" / "digits-sgd-seed0"
    out = tmp_path_factory.mktemp("quantities") / "report"
    return trajcheck.analyze(run, objective="run", sample=("own", "probe"), curvature=20, steps=":60", out=out).folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[tuple[str, str], QuantityRow]:
    return {(row.ref, row.sample): row for row in quantity_rows(read_report(folder))}


def test_the_headline_of_each_sample(folder: Path, rows: dict[tuple[str, str], QuantityRow]) -> None:
    head = json.loads((folder / "summary.json").read_text())["headline"]["samples"]
    assert list(rows) == [(ref, sample) for ref in ("final", "x_(t-1)") for sample in ("own", "probe")]
    for (ref, sample), row in rows.items():
        said = head[sample]["previous"] if ref == "x_(t-1)" else head[sample]["references"][ref]
        for name in ("convexity_ratio", "convexity_num", "convexity_den"):
            assert row.values[name] == said[name]
        assert {name: row.values[name] for name in said["shares"]} == said["shares"]
        assert row.values.get("cosine") == said["cosine"]


def test_quarters_ends_and_quotients(folder: Path, rows: dict[tuple[str, str], QuantityRow]) -> None:
    """The analysis is of the first half of the run, so that the last two quarters are empty, with a reason."""
    table = pd.read_csv(folder / "references.csv")
    own = table[table["sample"] == "own"]
    last = json.loads((folder / "summary.json").read_text())["run"]["last_step"]
    values = rows["final", "own"].values
    for n in (1, 2):
        part = own[(own.step >= (n - 1) * last / 4) & (own.step < n * last / 4)]
        assert values[f"cosine_q{n}"] == pytest.approx(part.cos_skip.mean(), rel=1e-12)
    assert values["cosine_q4"] is None and rows["final", "own"].reasons["cosine_q4"]
    steps = pd.read_csv(folder / "steps.csv")
    path = steps[steps["sample"] == "probe"]
    values = rows["x_(t-1)", "probe"].values
    for name in ("loss_change_sum", "loss_change_sum_se", "avg_smooth", "path_length", "init_dist"):
        assert values[name] == path[name].dropna().iloc[-1]
    assert values["path_ratio"] == path.path_length.dropna().iloc[-1] / path.init_dist.dropna().iloc[-1]
    assert values["lambda_max"] is None  # no row of the last quarter
    share = np.average(path.lambda_max.dropna() > path.stability_threshold[path.lambda_max.notna()])
    assert values["sharpness_above"] == pytest.approx(share)


def test_every_empty_quantity_has_a_reason(rows: dict[tuple[str, str], QuantityRow]) -> None:
    for row in rows.values():
        empty = {name for name, value in row.values.items() if value is None}
        assert empty <= row.reasons.keys() and all(row.reasons.values())
    assert rows["final", "own"].reasons["avg_smooth"] == "needs the gradient at the reference: give --ref-gradients"
    assert "cosine" not in rows["x_(t-1)", "own"].values


def test_what_a_headline_says_besides_is_taken_up(tmp_path: Path) -> None:
    out = analysis(tmp_path / "report", change={"loss_change_sum": 2.0})
    about = json.loads((out / "summary.json").read_text())
    about["headline"]["references"]["final"] |= {
        "convexity_ratio": 1.4,
        "convexity_ratio_rows_se": 0.2,
        "new_quantity": 3.0,
        "cosine_reason": "x* is an average",
        "shares": {"convex": 0.5, "not_convex": 0.5, "undetermined": 0.0, "convex_error": 0.1},
    }
    (out / "summary.json").write_text(json.dumps(about))
    row = quantity_rows(read_report(out))[0]
    assert (row.values["convexity_ratio_rows_se"], row.values["new_quantity"]) == (0.2, 3.0)
    assert row.values["convex_error"] == 0.1 and row.reasons["cosine"] == "x* is an average"
    assert value_of_error("convexity_ratio_rows_se") == "convexity_ratio" and value_of_error("new_quantity") is None
    assert in_order({"new_quantity", "cosine_error", "convex", "cosine"}) == [
        "cosine",
        "cosine_error",
        "convex",
        "new_quantity",
    ]


def test_parts_of_paths() -> None:
    assert below_common(["/a/b/c/s0", "/a/b/d/s0"]) == ["c/s0", "d/s0"]
    assert below_common(["/a/b/c/s0"]) == ["c/s0"] and below_common(["/a", "/a"]) == ["a", "a"]
    assert below_common(["/r/g/s0", "/r/g/s1"]) == ["g/s0", "g/s1"]
    assert parts("s0") == {"path": "s0", "name": "s0", "group": ".", "part1": "s0"}

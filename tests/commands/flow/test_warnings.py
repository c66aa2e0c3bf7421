"""What the summary of a flow warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from known_flows import quadratic
from run_files import describe_optimizer

import trajcheck


@pytest.mark.parametrize(
    ("name", "group", "words"),
    [
        ("SGD", {"momentum": 0.9}, "SGD with momentum"),
        ("Adam", {}, "its optimizer is Adam"),
        ("SGD", {"momentum": 0, "weight_decay": 0.1}, "weight decay, which the flow leaves out"),
    ],
)
def test_what_is_not_gradient_descent(tmp_path: Path, name: str, group: dict[str, Any], words: str) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    describe_optimizer(run, name, **group)
    report = trajcheck.flow(run, objective, out=tmp_path / "report")
    assert any(words in warning and "not gradient descent" in warning for warning in report.summary["warnings"])


def test_plain_gradient_descent_has_no_warning(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    assert trajcheck.flow(run, objective, rtol=1e-7, out=tmp_path / "report").summary["warnings"] == []
    (run / "run.json").unlink()
    warnings = trajcheck.flow(run, objective, rtol=1e-7, out=tmp_path / "unknown").summary["warnings"]
    assert len(warnings) == 1 and "optimizer is unknown" in warnings[0]


def test_a_tolerance_coarser_than_the_distance(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path, eta=1e-5, count=10)
    report = trajcheck.flow(run, objective, rtol=0.5, atol=0.5, replay_dtype="float32", out=tmp_path / "report")
    near = report.flow["flow_error"] > 0.1 * report.flow["flow_dist"]
    expected = [f"flow_error is over 10% of flow_dist at {near.sum()} of {(report.flow['flow_error'] > 0).sum()} times"]
    assert [each.partition(":")[0] for each in report.summary["warnings"]] == expected * bool(near.any())
    stiff = quadratic(tmp_path / "stiff", eta=0.002, count=300, every=20)
    coarse, fine = (
        trajcheck.flow(*stiff[:2], rtol=rtol, out=tmp_path / f"{rtol}").summary["warnings"] for rtol in (0.05, 1e-7)
    )
    assert len(coarse) == 1 and "give a smaller --rtol" in coarse[0] and not fine

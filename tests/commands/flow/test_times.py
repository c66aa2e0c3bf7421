"""Times that are missing, equal, or make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handwritten import write_objective, write_run
from known_flows import BOWL, LAYOUT, metadata_of, quadratic, reasons
from quadratics import Quadratic, descend
from safetensors.numpy import load_file, save_file

import trajcheck
from trajcheck.errors import RunError


def test_one_record(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    for path in sorted(run.glob("step-*"))[1:]:
        path.unlink()
    report = trajcheck.flow(run, objective, curvature=1, wanted_distance=1.0, out=tmp_path / "report")
    assert report.flow[["step", "flow_dist", "init_dist", "flow_error"]].values.tolist() == [[0, 0, 0, 0]]
    assert report.summary["flow"]["gradient_evaluations"] == 0
    assert "one record" in reasons(report, "bound_estimate")[0]


def test_a_closing_iterate_alone_has_no_batch(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    with pytest.raises(RunError, match="no batch was recorded at step 40"):
        trajcheck.flow(run, objective, start="step:40", sample="own", out=tmp_path / "report")


def test_equal_times(tmp_path: Path) -> None:
    """Steps at a rate of 0 (a warm-up, an update that a loss scaler skipped) do not move the flow."""
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    rates = [0.0, 0.0, 0.1, 0.0, 0.1]
    records = descend(problem, np.ones(6), [np.zeros((1, 6))] * 5, rates)
    run = write_run(tmp_path / "run", records, LAYOUT)
    frame = trajcheck.flow(run, write_objective(tmp_path / "objective.py", problem, LAYOUT), out=tmp_path / "r").flow
    assert (frame["flow_dist"][:3] == 0).all() and frame["flow_dist"][3] == frame["flow_dist"][4] > 0
    standing = [np.zeros((1, 6))] * 3
    still = write_run(tmp_path / "still", descend(problem, np.ones(6), standing, [0.0] * 3), LAYOUT)
    frame = trajcheck.flow(still, f"{tmp_path / 'objective.py'}:objective", out=tmp_path / "s").flow
    assert (frame["flow_dist"] == 0).all() and "relative_flow_dist" not in frame


def rewrite(run: Path, step: int, **changes: Any) -> None:
    """Change the metadata of a step; None removes."""
    path = run / f"step-{step:09d}.safetensors"
    meta = {**json.loads(metadata_of(path)["trajcheck"]), **changes}
    meta = {key: value for key, value in meta.items() if value is not None}
    save_file(load_file(path), path, {"trajcheck": json.dumps(meta)})


def test_tau_missing(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    whole = trajcheck.flow(run, objective, out=tmp_path / "whole").flow
    for step in (3, 40):
        rewrite(run, step - 1, lr=None)
        rewrite(run, step, tau=None)
    report = trajcheck.flow(run, objective, curvature=1, out=tmp_path / "report")
    assert set(reasons(report, "flow_dist")) == set(reasons(report, "tau")) == {3, 40}
    assert reasons(report, "bound_estimate") == {
        3: "the learning rate of step 2 is not known",
        40: "the learning rate of step 39 is not known",
    }
    assert report.flow["loss"].notna().all() and report.flow["init_dist"].notna().all()
    kept = report.flow["flow_dist"].notna()
    np.testing.assert_allclose(report.flow["flow_dist"][kept], whole["flow_dist"][kept], atol=1e-4)
    with pytest.raises(RunError, match=r"step 3, where the flow starts, has no tau.*: the learning rate of step 2 is"):
        trajcheck.flow(run, objective, start="step:3", out=tmp_path / "none")


def test_tau_is_summed_where_every_rate_is_known(tmp_path: Path) -> None:
    """A run written by hand, with rates alone, has the times, and so the flow, of one with its sums."""
    run, objective, _, _ = quadratic(tmp_path)
    whole = trajcheck.flow(run, objective, out=tmp_path / "whole").flow
    steps = list(map(int, whole["step"]))
    for step in steps:
        rewrite(run, step, tau=None, tau_squares=None)
    report = trajcheck.flow(run, objective, out=tmp_path / "report")
    pd.testing.assert_frame_equal(report.flow, whole, rtol=1e-14)
    assert report.flow["tau"].notna().all()
    rewrite(run, steps[0], lr=None)
    with pytest.raises(RunError, match=r"none of the \d+ records after step 0.* has a tau.*rate of step 0 is not"):
        trajcheck.flow(run, objective, out=tmp_path / "none")
    for step in steps:
        rewrite(run, step, lr=None)
    with pytest.raises(RunError, match=r"step 0, where the flow starts, has no tau"):
        trajcheck.flow(run, objective, out=tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tau": [0.5, 0.6]}, "step 5 has tau 0.5, 0.6 in its parameter groups.*one learning rate"),
        ({"tau": [0.1]}, "tau falls.*from step 4 to step 5"),
    ],
)
def test_times_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    rewrite(run, 5, **changes)
    with pytest.raises(RunError, match=words):
        trajcheck.flow(run, objective, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_groups_that_agree_are_one(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    whole = trajcheck.flow(run, objective, curvature=10, out=tmp_path / "whole").flow
    for step in range(41):
        meta = json.loads(metadata_of(run / f"step-{step:09d}.safetensors")["trajcheck"])
        rewrite(run, step, tau=meta["tau"] * 2, lr=meta["lr"] * 2 if "lr" in meta else None)
    pd.testing.assert_frame_equal(trajcheck.flow(run, objective, curvature=10, out=tmp_path / "report").flow, whole)

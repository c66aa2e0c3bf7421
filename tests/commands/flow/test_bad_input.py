"""Options that make no sense, objectives that do not fit, damaged runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from known_flows import Cli, quadratic
from places import SAMPLES
from run_files import amend

import trajcheck
from trajcheck.errors import ObjectiveError, RunError, StepFileError, TrajcheckError, UsageError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": "final"}, "expected init or step:N"),
        ({"start": "step:x"}, "expected init or step:N"),
        ({"sample": "previous"}, "expected one of full, probe, own"),
        ({"rtol": 0.0}, "--rtol 0"),
        ({"rtol": -1.0}, "--rtol -1"),
        ({"rtol": float("nan")}, "--rtol nan"),
        ({"atol": 0.0}, "--atol 0"),
        ({"max_evaluations": 0}, "--max-evaluations 0"),
        ({"curvature": 0}, "--curvature 0"),
        ({"wanted_distance": 1.0}, "needs --curvature"),
        ({"wanted_distance": -1.0, "curvature": 1}, "positive distance"),
        ({"replay_dtype": "bfloat16"}, "float64 or float32"),
        ({"objective": ""}, "needs the loss"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    run, objective, _, _ = quadratic(tmp_path, count=3)
    with pytest.raises(UsageError, match=re.escape(words)):
        trajcheck.flow(run, **{"objective": objective, **options}, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_bad_input(tmp_path: Path, cli: Cli) -> None:
    run, objective, _, _ = quadratic(tmp_path)

    def refused(error: type[TrajcheckError], words: str, folder: Path = run, **options: Any) -> None:
        with pytest.raises(error, match=words):
            trajcheck.flow(folder, **{"objective": objective, **options}, out=tmp_path / "report")
        assert not (tmp_path / "report").exists()

    refused(RunError, "no such run", tmp_path / "nothing")
    refused(RunError, "not among the 41 recorded steps.*nearest are 37, 38, 39, 40", start="step:99")
    refused(ObjectiveError, "does not fit the run", objective=f"{SAMPLES / 'objectives.py'}:digits")
    refused(ObjectiveError, "there is no file", objective="nothing.py:x")
    refused(ObjectiveError, "no such|there is no|objective.json", objective="run")
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text() + "\n\ndef infinite():\n    m, f = objective()\n    return m, lambda a, b: f(a, b) / 0\n"
    )
    refused(
        ObjectiveError,
        "step 0, where the flow starts: the loss or its gradient is not finite",
        objective=f"{path}:infinite",
    )
    assert cli("flow", run).code == 2
    assert cli("flow", run, "--objective", objective, "--rtol", 0).code == 2
    assert cli("flow", tmp_path / "nothing", "--objective", objective).code == 3
    amend(run, 7, {"param/b": np.array([1.0, np.nan])})
    refused(RunError, "step 7, tensor param/b holds NaN", sample="own")
    left = trajcheck.flow(run, objective, skip_bad=True, out=tmp_path / "left")
    assert 7 not in set(left.flow["step"]) and "7" in left.summary["left_out"]["steps"]


def test_a_run_that_ends_in_nan(tmp_path: Path, cli: Cli) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    amend(run, 40, {"param/b": np.array([1.0, np.nan])})
    outcome = cli("flow", run, "--objective", objective, "--out", tmp_path / "report", "--quiet")
    assert outcome.code == 4 and "ends in NaN or Inf" in outcome.err
    assert pd.read_csv(tmp_path / "report" / "flow.csv")["step"].max() == 39


def test_a_truncated_step(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    path = run / "step-000000007.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StepFileError):
        trajcheck.flow(run, objective, out=tmp_path / "report")

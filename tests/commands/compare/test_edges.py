"""Runs of one record, diverged, without gradients, of other dtypes, with frozen parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dense import Record
from dense_compare import compared
from plain_run_files import write_plain_step
from two_runs import (
    NETWORK,
    Cli,
    assert_accounted,
    assert_columns,
    by_step,
    network_objective,
    network_records,
    written,
)

import trajcheck


def test_runs_of_one_record(tmp_path: Path) -> None:
    runs = [written(tmp_path, name, [Record(4, np.array(x))], None) for name, x in (("a", [0.0, 0]), ("b", [3.0, 4]))]
    found = trajcheck.compare(*runs, layers=True, out=tmp_path / "report")
    assert found.pairs["dist"].tolist() == [5.0]
    assert "relative_dist" not in found.pairs and "update_cos" not in found.pairs
    assert found.summary["inits"][str(runs[1])]["one"] is None
    assert any("whether the inits are one is not known" in warning for warning in found.summary["warnings"])
    assert_accounted(found)
    reasons = set(found.undefined["reason"])
    assert {"both runs are where they began", "one of the runs is where it began"} <= reasons


def test_records_of_parameters_alone(tmp_path: Path, cli: Cli) -> None:
    """Weights alone have distances; an objective that finds no batch says so and exits 4."""
    a, b = ([Record(r.step, r.x) for r in network_records(seed)] for seed in (1, 2))
    run_a, run_b = written(tmp_path, "a", a, optimizer=None), written(tmp_path, "b", b, optimizer=None)
    found = trajcheck.compare(run_a, run_b, out=tmp_path / "report")
    assert_columns(found.pairs, compared(a, b, by_step(a, b)))
    assert "rsi_a" not in found.pairs and "ref_dist_a" in found.pairs
    assert_accounted(found)
    objective = network_objective(tmp_path)
    outcome = cli("compare", run_a, run_b, "--objective", objective, "--out", tmp_path / "replayed")
    assert outcome.code == 4
    assert "nothing could be replayed of" in outcome.err and "--line: no loss along the line" in outcome.err


def test_a_diverged_run_is_compared_up_to_there(tmp_path: Path, cli: Cli) -> None:
    a, b = network_records(1), network_records(2)
    for record in b[9:]:
        record.x = np.full(NETWORK.size, np.nan)
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b)
    outcome = cli("compare", run_a, run_b, "--out", tmp_path / "report")
    assert outcome.code == 4 and "compared up to there" in outcome.err
    found = pd.read_csv(tmp_path / "report" / "compare.csv")
    assert found["step_a"].tolist() == list(range(9))
    assert found["ref_dist_a"][8] == pytest.approx(found["dist"][8])


def test_a_loss_that_is_not_finite_leaves_empty_cells(tmp_path: Path, plain_run: Path, objective_file: Path) -> None:
    found = trajcheck.compare(plain_run, plain_run, objective=f"{objective_file}:infinite", out=tmp_path / "report")
    assert "barrier" not in found.pairs and found.incomplete
    assert_accounted(found)


def test_other_dtypes_meet_in_float64(tmp_path: Path) -> None:
    records = network_records(1), network_records(2)
    runs = written(tmp_path, "a", records[0]), written(tmp_path, "b", records[1], dtype=np.float32)
    found = trajcheck.compare(*runs, objective=network_objective(tmp_path), line=1, out=tmp_path / "report")
    assert found.summary["line"]["dtype"] == "float64"
    assert_columns(found.pairs, {"dist": compared(*records, by_step(*records))["dist"]}, 1e-6)


def test_frozen_parameters_lie_on_the_line_too(tmp_path: Path, objective_file: Path) -> None:
    """A frozen bias takes part in the line, and not in distances."""
    runs, biases = [], []
    rng = np.random.default_rng(0)
    batch = {"batch/0": rng.normal(size=(4, 3)), "batch/1": rng.normal(size=(4, 2))}
    weights = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        weights.append(rng.normal(size=(3, 2)))
        biases.append(rng.normal(size=2))
        tensors = {"param/layer.weight": weights[-1], "param/layer.bias": biases[-1], **batch}
        tensors["grad/layer.weight"] = np.zeros((3, 2))
        write_plain_step(folder, 0, tensors, loss=1.0)
        del tensors["param/layer.bias"]  # stored once
        write_plain_step(folder, 1, tensors, loss=1.0, frozen_from=0)
        parameters = [
            {"name": "layer.weight", "shape": [3, 2], "trainable": True},
            {"name": "layer.bias", "shape": [2], "trainable": False},
        ]
        (folder / "run.json").write_text(json.dumps({"format": 1, "id": name, "parameters": parameters}))
        runs.append(folder)
    found = trajcheck.compare(*runs, objective=f"{objective_file}:good", line=1, out=tmp_path / "report")
    np.testing.assert_allclose(found.pairs["dist"], np.linalg.norm(weights[0] - weights[1]))
    middle = batch["batch/0"] @ (weights[0] + weights[1]) / 2 + (biases[0] + biases[1]) / 2 - batch["batch/1"]
    np.testing.assert_allclose(found.pairs["line_0.5"], np.mean(middle**2))

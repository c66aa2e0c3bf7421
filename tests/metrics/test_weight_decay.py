"""rsi_wd, eb_wd, cos_wd against plain numpy: per group, recorded and replayed, and absent without weight decay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from plain_run_files import SHAPES
from safetensors.numpy import load_file

import trajcheck


def describe(run: Path, decays: dict[str, float], decoupled: bool = False) -> None:
    groups = [{"lr": 0.1, "weight_decay": decay, "momentum": 0, "decoupled": decoupled} for decay in decays.values()]
    parameters = [
        {"name": name, "shape": list(SHAPES[name]), "dtype": "float32", "group": group, "trainable": True}
        for group, name in enumerate(decays)
    ]
    text = {"format": 1, "id": "decayed", "parameters": parameters, "optimizer": {"name": "SGD", "groups": groups}}
    (run / "run.json").write_text(json.dumps(text))


@pytest.mark.parametrize("replay", [False, True])
def test_each_group_has_its_own_decay(plain_run: Path, objective_file: Path, tmp_path: Path, replay: bool) -> None:
    decays = {"layer.weight": 0.5, "layer.bias": 0.0}
    describe(plain_run, decays)
    objective = f"{objective_file}:good" if replay else None
    report = trajcheck.analyze(plain_run, ["final", "init"], objective, out=tmp_path / "report")
    steps = [load_file(plain_run / f"step-{step:09d}.safetensors") for step in range(11)]
    rows = report.references[report.references["ref"] == "init"].set_index("step")
    for step in range(1, 10):
        here = steps[step]
        if replay:
            w, b = (here[f"param/{name}"].astype(np.float64) for name in SHAPES)
            residual = (here["batch/0"] @ w + b - here["batch/1"]) * (2 / 8)
            gradients = {"layer.weight": here["batch/0"].T.astype(np.float64) @ residual, "layer.bias": residual.sum(0)}
        else:
            gradients = {name: here[f"grad/{name}"].astype(np.float64) for name in SHAPES}
        errors, regularised = [], []
        for name in SHAPES:
            x = here[f"param/{name}"].astype(np.float64)
            errors.append((x - steps[0][f"param/{name}"]).ravel())
            regularised.append((gradients[name] + decays[name] * x).ravel())
        e, g = np.concatenate(errors), np.concatenate(regularised)
        tolerance = 1e-5 if replay else 1e-12
        assert rows.loc[step, "rsi_wd"] == pytest.approx(g @ e / (e @ e), rel=tolerance, abs=tolerance)
        assert rows.loc[step, "eb_wd"] == pytest.approx(np.sqrt(g @ g / (e @ e)), rel=tolerance)
        assert rows.loc[step, "cos_wd"] == pytest.approx(g @ e / np.sqrt(g @ g * (e @ e)), rel=tolerance, abs=tolerance)
    assert report.undefined[report.undefined["column"] == "cos_floor"]["reason"].str.contains("decay").any()


def test_decoupled_decay_is_said_to_be_no_objectives_gradient(plain_run: Path, tmp_path: Path) -> None:
    describe(plain_run, {"layer.weight": 0.5, "layer.bias": 0.5}, decoupled=True)
    report = trajcheck.analyze(plain_run, out=tmp_path / "report")
    assert any("decoupled" in warning for warning in report.summary["warnings"])


def test_without_decay_there_are_no_such_columns(plain_run: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(plain_run, out=tmp_path / "report")
    assert not {"rsi_wd", "eb_wd", "cos_wd"} & {*report.references.columns, *report.undefined["column"]}

"""objective.json, replayed without the user's code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_runs import MODULE, RUNS, eager
from places import HELPERS
from plain_run_files import Outcome
from replay_exported import product, sample_of, stored

from trajcheck.errors import ObjectiveError
from trajcheck.objective.exported import ExportedModel
from trajcheck.objective.loading import load_objective


def test_replay_without_the_users_code(runs: Path) -> None:
    """In a process that cannot import the models: losses and gradients are the recorded ones, H v the eager one."""
    script = [sys.executable, str(HELPERS / "replay_exported.py"), MODULE, *(str(runs / name) for name in RUNS)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name, line in zip(RUNS, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert found["steps"] == list(range(len(RUNS[name][2])))
        assert max(map(abs, found["losses"])) <= 1e-6
        assert max(found["gradients"]) <= 1e-6
        assert found["note"].startswith("the exported objective gives its reference loss at step 0")
        own = eager(name)
        assert found["names"] == list(own.trainable)
        expected = product(own, stored(runs / name, 0, "param"), sample_of(runs / name, 0))
        torch.testing.assert_close(torch.tensor(found["product"]), expected, rtol=1e-5, atol=1e-6)
        assert float(expected.abs().max()) > 0.01


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_replay_in_another_dtype(runs: Path, name: str, dtype: str) -> None:
    here, own = load_objective("run", run=runs / name, device="cpu", dtype=dtype), eager(name)
    own.prepare(dtype)
    if name != "batchnorm":  # a plain tensor of the model, which .to() does not reach, and the export does
        own._scope.model.shift = own._scope.model.shift.to(own.dtype)
    x, z = stored(runs / name, 1, "param"), sample_of(runs / name, 1, own.dtype)
    loss, gradient = here.loss_and_gradient(x, z)
    expected, expected_gradient = own.loss_and_gradient(x, z)
    assert torch.equal(loss, expected)
    for parameter, part in expected_gradient.items():
        assert torch.equal(gradient[parameter], part)
    if dtype == "float64":
        torch.testing.assert_close(product(here, x, z), product(own, x, z), rtol=1e-9, atol=1e-12)


def test_buffers_start_anew_at_every_evaluation(runs: Path) -> None:
    here = load_objective("run", run=runs / "batchnorm", device="cpu")
    before = {name: buffer.clone() for name, buffer in here._scope.named_buffers()}
    assert any("running_mean" in name for name in before)
    x, z = stored(runs / "batchnorm", 1, "param"), sample_of(runs / "batchnorm", 1)
    values = [here.loss(x, z) for _ in range(3)]
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    for name, buffer in here._scope.named_buffers():
        assert torch.equal(buffer, before[name])


def test_tied_parameters_are_one(runs: Path) -> None:
    here = load_objective("run", run=runs / "tied", device="cpu")
    model = here._scope.model
    assert isinstance(model, ExportedModel)
    assert model.get_parameter("output.weight") is model.get_parameter("embedding.weight")
    assert [name for name in here.names if "weight" in name and name.startswith(("output", "embedding"))] == [
        "embedding.weight"
    ]
    here.check({name: tuple(t.shape) for name, t in stored(runs / "tied", 0, "param").items()}, {})


def test_the_model_takes_no_memory(runs: Path) -> None:
    here = load_objective("run", run=runs / "tied", device="cpu", dtype="float64")
    for parameter in here._scope.model.parameters():
        assert parameter.untyped_storage().nbytes() <= 8
        assert parameter.dtype is torch.float64


def test_the_command_line(cli: Callable[..., Outcome], runs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("analyze", runs / "dropout", "--objective", "run", "--replay-dtype", "float32", "--out", "report")
    assert done.code == 0, done
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert "recorded" in json.dumps(summary)
    rows = (tmp_path / "report" / "steps.csv").read_text().splitlines()
    column = rows[0].split(",").index("replay_loss_error")
    assert [float(row.split(",")[column]) for row in rows[1:5]] == [0.0] * 4


def test_run_names_a_run() -> None:
    with pytest.raises(ObjectiveError, match="say which run"):
        load_objective("run")

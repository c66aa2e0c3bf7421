"""Noise between the batches of a row, from --sample probe: every column against tests/helpers/dense_noise.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted import estimate
from dense import flat
from dense_noise import COLUMNS, noise
from frames import assert_accounted, assert_close, col
from sample_cases import NETWORK, analyzed, assert_same_values, network_records, written

from trajcheck.measuring.options import Options

NAMES = [f"{name}{end}" for name in COLUMNS for end in ("", "_se")]
HERE: dict[str, Any] = {"sample": ("probe",), "metrics": ("noise",), "refs": ("final",)}
SIZES = (4, 2, 5, 4, 3, 4)


def unequal_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    stream = np.random.default_rng(33)
    return [NETWORK.sample(size, stream) for size in SIZES]


def expected(task: Any, batches: Sequence[Any], sizes: Sequence[float]) -> dict[str, np.ndarray]:
    rows = [noise([flat(task.program.grad(record.x, batch)) for batch in batches], sizes) for record in task.records]
    return {name: np.array([row[name] for row in rows]) for name in NAMES}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any, Any]:
    folder = tmp_path_factory.mktemp("probed")
    run, objective, task = written(folder, network_records(6), unequal_batches())
    return run, objective, task, analyzed(run, objective, folder / "report", **HERE)


def test_every_column_on_probe_batches_of_unequal_size(probed: tuple[Path, str, Any, Any]) -> None:
    _, _, task, report = probed
    steps = report.steps
    for name, values in expected(task, task.probe, SIZES).items():
        assert_close(steps, name, values)
    assert np.isfinite(col(steps, "growth")).any()
    assert_accounted(report.undefined, "steps", steps, NAMES)


def test_little_memory_changes_no_bit_and_evaluates_again(probed: tuple[Path, str, Any, Any], tmp_path: Path) -> None:
    run, objective, _, report = probed
    told = estimate(run, Options(**HERE, objective=objective, replay_dtype="float64"))
    smallest = f"{told.device_minimum}B"
    least = analyzed(run, objective, tmp_path / "least", **HERE, memory=smallest)
    assert_same_values(report.steps, least.steps)
    evaluations = [each.summary["replay"]["evaluations"] for each in (report, least)]
    assert evaluations[1] == evaluations[0] + 6 * 7, "each probe batch once more on each row"
    again = estimate(run, Options(**HERE, objective=objective, replay_dtype="float64", memory=smallest))
    assert [each.losses + each.gradients for each in (told, again)] == evaluations
    assert "two batches of a row are asked whether the loss is a mean over its examples" in " ".join(str(told).split())


def test_tensor_by_tensor_the_squares_add_up(probed: tuple[Path, str, Any, Any], tmp_path: Path) -> None:
    """Whatever the tensors are cut into: G2 and the trace of all are the sums over tensors."""
    run, objective, _, report = probed
    layers = analyzed(run, objective, tmp_path / "layers", **HERE, layers=True).layers
    path = layers[layers["ref"].isna() | (layers["ref"] == "")]
    assert path["tensor"].nunique() == 4
    for name in ("grad_true_sq", "noise_trace"):
        assert_close(report.steps, name, path.groupby("step")[name].sum().to_numpy())

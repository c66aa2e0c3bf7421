"""path_integral: the slope along the last update, integrated; exact on polynomials, and the loss's change elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from dense import Record
from frames import assert_close, col
from plain_run_files import Outcome
from quadratics import Quadratic, descend
from sample_cases import analyzed, network_records, rows_of, written


@dataclass
class Power:
    """f(x; z) = mean over x of (x - z)^degree: along a line a polynomial of that degree."""

    degree: int
    size: int = 5

    def f(self, x: np.ndarray, z: np.ndarray) -> float:
        return float(((x - z) ** self.degree).mean())

    def grad(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(self.degree * (x - z) ** (self.degree - 1) / self.size)

    def torch_loss(self) -> str:
        return f"""
def loss(x, batch):
    return ((x - batch.to(x.dtype)) ** {self.degree}).mean()
"""


def error_of(degree: int, points: int, folder: Path) -> np.ndarray:
    """|path_integral - loss_change| / |loss_change| on jumps long enough for every power to matter."""
    problem, rng = Power(degree), np.random.default_rng(degree)
    records = []
    for t in range(8):
        x, z = rng.uniform(-1, 1, problem.size), rng.uniform(-0.5, 0.5, problem.size)
        records.append(Record(t, x, problem.grad(x, z), lr=0.1, z=z))
    run, objective, _ = written(folder, records, problem=problem)
    steps = analyzed(run, objective, folder / "report", refs=["final"], path_integral=points).steps
    integral, change = col(steps, "path_integral")[1:], col(steps, "loss_change")[1:]
    assert np.isfinite(integral).all()
    return np.asarray(np.abs(integral - change) / np.abs(change))


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_n_points_integrate_a_polynomial_of_degree_2n_exactly(points: int, tmp_path: Path) -> None:
    assert error_of(2 * points, points, tmp_path).max() < 1e-9


@pytest.mark.parametrize("points", [1, 2, 3])
def test_one_degree_more_they_do_not(points: int, tmp_path: Path) -> None:
    assert error_of(2 * points + 2, points, tmp_path).max() > 1e-6


def test_one_point_is_exact_on_a_quadratic(tmp_path: Path) -> None:
    quadratic, rng = Quadratic.with_spectrum([0.1, 0.5, 2.0, 5.0], seed=1), np.random.default_rng(0)
    records = descend(quadratic, rng.normal(size=4), quadratic.samples(12, rng), [0.1] * 12)
    run, objective, _ = written(tmp_path, records, problem=quadratic)
    steps = analyzed(run, objective, tmp_path / "report", refs=["final"], path_integral=1).steps
    np.testing.assert_allclose(col(steps, "path_integral"), col(steps, "loss_change"), rtol=1e-9, atol=1e-14)


def test_more_points_come_nearer_to_the_loss_change(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(rate=0.5))
    errors = []
    for points in (1, 2, 4, 8):
        steps = analyzed(run, objective, tmp_path / f"report-{points}", path_integral=points).steps
        errors.append(np.nanmax(col(steps, "path_integral_error")))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-4 and errors[-1] < 1e-8


def test_the_error_is_the_disagreement_with_the_loss_change(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(rate=0.5))
    steps = analyzed(run, objective, tmp_path / "report", path_integral=1).steps
    change = col(steps, "loss_change")
    assert_close(steps, "path_integral_error", np.abs(col(steps, "path_integral") - change) / np.abs(change))


def test_it_is_on_every_sample(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(), name="with_data")
    samples = ("own", "previous", "full")
    steps = analyzed(run, objective, tmp_path / "report", sample=samples, path_integral=8).steps
    for sample in samples:
        rows = rows_of(steps, sample)
        assert_close(rows, "path_integral", col(rows, "loss_change"), relative=1e-8)


def test_unasked_it_is_not_there(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    steps = analyzed(run, objective, tmp_path / "report").steps
    assert not {"path_integral", "path_integral_error"} & set(steps.columns)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--path-integral", "0"], "64"),
        (["--path-integral", "65"], "64"),
        (["--path-integral", "3", "without objective"], "--objective"),
    ],
)
def test_it_needs_points_and_an_objective(
    options: list[str], words: str, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    run, objective, _ = written(tmp_path, network_records())
    given = options[:2] + ([] if len(options) > 2 else ["--objective", objective])
    outcome = cli("analyze", run, *given, "--out", tmp_path / "report")
    assert outcome.code == 2
    assert "--path-integral" in outcome.err and words in outcome.err

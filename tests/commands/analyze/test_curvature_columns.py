"""--curvature: lambda_max, lambda_min, grad_curvature and stability_threshold against Hessians that are known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense import Record
from handwritten import write_objective, write_run
from places import SAMPLES
from plain_run_files import SHAPES
from quadratics import Layout, Quadratic, descend
from safetensors.numpy import load_file

import trajcheck


def test_logistic_regression(tmp_path: Path) -> None:
    """H = X^T diag(p (1 - p)) X / n, X with a column of ones."""
    run = SAMPLES / "breast-cancer-gd"
    objective = f"{SAMPLES / 'objectives.py'}:breast_cancer"
    steps = trajcheck.analyze(
        run, objective=objective, curvature=50, curvature_ends="both", curvature_tolerance=1e-10, out=tmp_path
    ).steps.set_index("step")
    assert steps["lambda_max"].notna().sum() == 3
    features = load_file(run / "step-000000000.safetensors")["batch/0"]
    wide = np.hstack([features, np.ones((len(features), 1))])
    for step in (0, 50, 100):
        tensors = load_file(run / f"step-{step:09d}.safetensors")
        x = np.concatenate([tensors["param/weight"].ravel(), tensors["param/bias"]])
        g = np.concatenate([tensors["grad/weight"].ravel(), tensors["grad/bias"]])
        p = 1 / (1 + np.exp(-wide @ x))
        hessian = wide.T @ (wide * (p * (1 - p))[:, None]) / len(wide)
        values = np.linalg.eigvalsh(hessian)
        row = steps.loc[step]
        assert row["lambda_max"] == pytest.approx(values[-1], rel=1e-6)
        assert row["lambda_min"] == pytest.approx(values[0], abs=1e-6 * values[-1])
        assert abs(row["lambda_max"] - values[-1]) <= row["lambda_max_residual"] + 1e-12
        assert abs(row["lambda_min"] - values[0]) <= row["lambda_min_residual"] + 1e-12
        assert row["grad_curvature"] == pytest.approx(g @ hessian @ g / (g @ g), rel=1e-9)
        assert row["stability_threshold"] == pytest.approx(2 / 0.2)


def quadratic_run(folder: Path, spectrum: list[float], optimizer: str | None) -> tuple[Path, str]:
    problem = Quadratic.with_spectrum(spectrum, seed=1)
    stream = np.random.default_rng(0)
    records: list[Record] = descend(problem, stream.normal(size=len(spectrum)), problem.samples(4, stream), [0.05] * 4)
    layout: Layout = {"x": (len(spectrum),)}
    run = write_run(folder / "run", records, layout, optimizer=optimizer)
    return run, write_objective(folder / "objective.py", problem, layout)


@pytest.mark.parametrize("spectrum", [[1.0, 2.0, 3.0, 7.0], [-9.0, -1.0, 0.5, 4.0], [0.0, 0.0, 1.0], [2.0]])
def test_quadratics(tmp_path: Path, spectrum: list[float]) -> None:
    run, objective = quadratic_run(tmp_path, spectrum, "SGD")
    steps = trajcheck.analyze(
        run, objective=objective, curvature=1, curvature_ends="both", out=tmp_path / "report"
    ).steps
    np.testing.assert_allclose(steps["lambda_max"].dropna(), max(spectrum), atol=1e-6 * max(map(abs, spectrum)))
    np.testing.assert_allclose(steps["lambda_min"].dropna(), min(spectrum), atol=1e-6 * max(map(abs, spectrum)))
    inside = steps["grad_curvature"].dropna()
    assert len(inside) == 4
    assert ((inside >= min(spectrum) - 1e-9) & (inside <= max(spectrum) + 1e-9)).all()


@pytest.mark.parametrize(
    ("optimizer", "threshold", "reason"),
    [
        ("SGD", 2 / 0.05, ""),
        ("momentum", 2 * 1.9 / 0.05, ""),
        ("Adam", None, "preconditioned"),
        (None, None, "unknown"),
    ],
)
def test_the_threshold_is_that_of_the_optimizer(
    tmp_path: Path, optimizer: str | None, threshold: float | None, reason: str
) -> None:
    run, objective = quadratic_run(tmp_path, [1.0, 2.0], optimizer)
    report = trajcheck.analyze(run, objective=objective, curvature=2, curvature_ends="both", out=tmp_path / "report")
    if threshold is None:
        assert "stability_threshold" not in report.steps
        reasons = report.undefined[report.undefined["column"] == "stability_threshold"]["reason"]
        assert reasons.str.contains(reason).any()
    else:
        np.testing.assert_allclose(report.steps["stability_threshold"].dropna(), threshold, rtol=1e-12)


def test_only_every_so_many_rows(plain_run: Path, objective_file: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(
        plain_run, objective=f"{objective_file}:good", curvature=4, curvature_ends="both", out=tmp_path / "report"
    )
    assert report.steps.loc[report.steps["lambda_max"].notna(), "step"].tolist() == [0, 4, 8]
    written = pd.read_csv(tmp_path / "report" / "steps.csv")
    assert written.columns.tolist() == report.steps.columns.tolist()
    batch = load_file(plain_run / "step-000000004.safetensors")["batch/0"].astype(np.float64)
    wide = np.hstack([batch, np.ones((4, 1))])
    block = wide.T @ wide * (2 / 8)  # once for each of the two outputs
    assert report.steps.set_index("step").loc[4, "lambda_max"] == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-5)
    assert sum(np.prod(shape) for shape in SHAPES.values()) == 2 * len(block)


def test_eigenvalues_that_were_not_found_are_empty(
    plain_run: Path, objective_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trajcheck.replay.row_evaluation as evaluation

    found = evaluation.extreme_eigenvalues
    monkeypatch.setattr(evaluation, "extreme_eigenvalues", lambda *a, **how: found(*a, **{**how, "error": -1.0}))
    report = trajcheck.analyze(
        plain_run, objective=f"{objective_file}:good", curvature=4, curvature_ends="both", out=tmp_path / "report"
    )
    assert "lambda_max" not in report.steps and report.steps["lambda_max_residual"].notna().sum() == 3
    reasons = report.undefined[report.undefined["column"] == "lambda_max"]["reason"]
    assert reasons.str.contains("did not converge").any()
    assert any("--curvature" in lack for lack in report.incomplete)


@pytest.mark.parametrize("ends", ["max", "min", "both"])
def test_each_end_stands_on_its_own_residual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """A spectrum whose lower end is crowded, and products for its upper end alone."""
    import trajcheck.replay.row_evaluation as evaluation

    monkeypatch.setattr(evaluation, "extreme_eigenvalues", partial(evaluation.extreme_eigenvalues, max_products=30))
    spectrum = [*np.linspace(0.1, 0.2, 60), 3.0, 7.0]
    run, objective = quadratic_run(tmp_path, spectrum, "SGD")
    how: dict[str, Any] = {"curvature_ends": ends, "curvature_tolerance": 1e-13}
    report = trajcheck.analyze(run, objective=objective, curvature=1, out=tmp_path / "report", **how)
    rows = len(report.steps) - 1
    assert (report.steps["hessian_products"].dropna() <= 30).all()
    if ends != "min":
        np.testing.assert_allclose(report.steps["lambda_max"].dropna(), [7.0] * rows, atol=1e-5)
    else:
        assert not {"lambda_max", "lambda_max_residual"} & set(report.steps)
    if ends == "max":
        assert not {"lambda_min", "lambda_min_residual"} & {*report.steps, *report.undefined["column"]}
        assert report.incomplete == [] and not any("Lanczos" in warning for warning in report.summary["warnings"])
        assert (report.steps["hessian_products"].dropna() < 30).all()
        return
    reasons = report.undefined[report.undefined["column"] == "lambda_min"]["reason"]
    assert reasons.str.contains("did not converge in (?:28|29) products").any()
    assert any(
        f"lambda_min was not found on {rows} of {rows} rows: Lanczos" in warning
        for warning in report.summary["warnings"]
    )
    assert any("lambda_min was found on no row" in lack for lack in report.incomplete)  # so exit 4


def test_another_tolerance_finds_them_anew(tmp_path: Path) -> None:
    """In the same report, the numbers are those of a report of its own; and each says its error."""
    spectrum = [*np.linspace(0.1, 5.0, 60), 7.0]
    run, objective = quadratic_run(tmp_path, spectrum, "SGD")

    def found(tolerance: float, name: str) -> pd.DataFrame:
        report = trajcheck.analyze(
            run, objective=objective, curvature=2, curvature_tolerance=tolerance, out=tmp_path / name
        )
        return report.steps[report.steps["lambda_max"].notna()].reset_index(drop=True)

    loose, tight, alone = found(1e-2, "report"), found(1e-9, "report"), found(1e-9, "alone")
    for frame, tolerance in ((loose, 1e-2), (tight, 1e-9)):
        np.testing.assert_array_less(np.abs(frame["lambda_max"] - 7), frame["lambda_max_error"] + 1e-12)
        np.testing.assert_array_less(frame["lambda_max_error"], 7 * tolerance + 1e-12)
    assert (loose["hessian_products"] < tight["hessian_products"]).all()
    pd.testing.assert_frame_equal(tight, alone)


def test_the_options_must_make_sense(plain_run: Path, tmp_path: Path) -> None:
    with pytest.raises(trajcheck.TrajcheckError, match="--objective"):
        trajcheck.analyze(plain_run, curvature=1, curvature_ends="both", out=tmp_path / "report")


def test_a_small_basis_finds_the_same_eigenvalues(tmp_path: Path) -> None:
    run, objective = SAMPLES / "breast-cancer-gd", f"{SAMPLES / 'objectives.py'}:breast_cancer"
    frames = [
        trajcheck.analyze(
            run,
            objective=objective,
            curvature=75,
            curvature_ends="both",
            curvature_tolerance=1e-9,
            memory=memory,
            out=tmp_path / str(memory),
        ).steps
        for memory in (None, "7.5kB")  # leaves 16 vectors of 31 numbers for the basis
    ]
    for name in ("lambda_max", "lambda_min"):
        large, small = (frame[name] for frame in frames)
        np.testing.assert_allclose(small, large, atol=1e-6 * frames[0]["lambda_max"].max())


def test_curvature_on_probe_batches_is_their_mean(tmp_path: Path) -> None:
    run = SAMPLES / "digits-sgd-seed0"
    report = trajcheck.analyze(
        run, objective="run", curvature=60, curvature_ends="both", sample=("probe",), steps="0:61:60", out=tmp_path
    )
    row = report.steps.set_index("step").loc[0]
    assert row["lambda_max"] > row["grad_curvature"] > row["lambda_min"]
    assert 0 < row["lambda_max_se"] < row["lambda_max"]
    assert row["stability_threshold"] == pytest.approx(4.0)
    assert "stability_threshold_se" not in row

"""trajcheck.flow against flows that are known: quadratics, a deep linear network, scipy on the sample run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deep_linear import DeepLinear
from known_flows import BOWL, SADDLE, descent, exact, made, quadratic, reasons
from places import SAMPLES
from safetensors.numpy import load_file

import trajcheck


@pytest.mark.parametrize("spectrum", [BOWL, SADDLE])
@pytest.mark.parametrize("rtol", [1e-4, 1e-9])
def test_a_quadratic_is_held_against_the_matrix_exponential(tmp_path: Path, spectrum: list[float], rtol: float) -> None:
    run, objective, hessian, start = quadratic(tmp_path, spectrum)
    report = trajcheck.flow(run, objective, rtol=rtol, curvature=8, out=tmp_path / "report")
    frame = report.flow.set_index("step")
    taus = 0.1 * np.arange(41)
    xs, thetas = descent(hessian, start, 0.1, 40), exact(hessian, start, taus)
    size = np.linalg.norm(thetas, axis=1)
    distance, away = np.linalg.norm(xs - thetas, axis=1), np.linalg.norm(xs - start, axis=1)
    assert not report.incomplete and list(frame.index) == list(range(41))
    np.testing.assert_allclose(frame["tau"], taus, rtol=1e-12)
    assert (abs(frame["flow_dist"] - distance) <= 10 * rtol * size.max()).all()
    np.testing.assert_allclose(frame["init_dist"], away, rtol=1e-9, atol=1e-15)
    relative = frame["flow_dist"][1:] / frame["init_dist"][1:]
    np.testing.assert_allclose(frame["relative_flow_dist"][1:], relative, rtol=1e-12)
    assert reasons(report, "relative_flow_dist") == {0: "x_t is where the flow starts"}
    np.testing.assert_allclose(frame["loss"], [x @ hessian @ x / 2 for x in xs], rtol=1e-9, atol=1e-12)
    expected = [x @ hessian @ x / 2 for x in thetas]
    np.testing.assert_allclose(frame["flow_loss"], expected, rtol=100 * rtol, atol=100 * rtol)
    slopes = np.linalg.norm(thetas @ hessian, axis=1)
    np.testing.assert_allclose(frame["flow_grad_norm"], slopes, rtol=100 * rtol, atol=100 * rtol)
    assert frame["flow_error"].max() <= 10 * rtol * size.max() and frame["flow_error"][1:].min() > 0
    known = frame[frame["lambda_max"].notna()]
    assert list(known.index) == [0, 8, 16, 24, 32, 40]
    np.testing.assert_allclose(known["lambda_min"], min(spectrum), atol=1e-6)
    np.testing.assert_allclose(known["lambda_max"], max(spectrum), atol=1e-6)
    assert set(reasons(report, "lambda_min")) == set(range(41)) - set(known.index)


def test_flow_error_is_of_the_size_of_the_error(tmp_path: Path) -> None:
    run, objective, hessian, start = quadratic(tmp_path, SADDLE)
    for rtol in (1e-3, 1e-5, 1e-7):
        frame = trajcheck.flow(run, objective, rtol=rtol, out=tmp_path / f"{rtol}").flow
        true = np.linalg.norm(descent(hessian, start, 0.1, 40) - exact(hessian, start, frame["tau"]), axis=1)
        error = abs(frame["flow_dist"] - true)
        assert error.max() <= 3 * frame["flow_error"].max() <= 30 * rtol * np.linalg.norm(start)


def test_the_distance_falls_in_proportion_to_the_rate(tmp_path: Path) -> None:
    largest = []
    for part in (1, 2, 4, 8):
        run, objective, _, _ = quadratic(tmp_path / str(part), eta=0.1 / part, count=40 * part, every=part)
        report = trajcheck.flow(run, objective, rtol=1e-6, out=tmp_path / str(part) / "report")
        largest.append(report.summary["headline"]["max_flow_dist"])
    ratios = np.array(largest[:-1]) / np.array(largest[1:])
    assert ((ratios > 1.9) & (ratios < 2.4)).all() and abs(ratios[-1] - 2) < 0.05, ratios


def test_at_a_saddle_the_distance_grows_as_the_flow_does(tmp_path: Path) -> None:
    """|x_k - theta(tau)| ~ |<v, x_0>| e^{-lambda tau} eta lambda^2 tau / 2; lambda = lambda_min < 0, v its vector."""
    run, objective, hessian, start = quadratic(tmp_path, SADDLE, eta=0.02, count=1000, every=20)
    frame = trajcheck.flow(run, objective, rtol=1e-7, curvature=10, out=tmp_path / "report").flow
    late = frame[frame["tau"] >= 14]
    slope = np.polyfit(late["tau"], np.log(late["flow_dist"] / late["tau"]), 1)[0]
    assert slope == pytest.approx(0.5, rel=0.02)
    v = np.linalg.eigh(hessian)[1][:, 0]
    predicted = abs(v @ start) * np.exp(0.5 * late["tau"]) * 0.02 * 0.25 * late["tau"] / 2
    np.testing.assert_allclose(late["flow_dist"], predicted, rtol=0.05)
    bounds = late["bound_estimate"] / late["flow_dist"]
    assert (bounds >= 1).all()


@pytest.mark.parametrize(
    ("spectrum", "eta"),
    [
        *((spectrum, eta) for spectrum in (BOWL, SADDLE) for eta in (0.02, 0.2, 0.47)),
        *((spectrum, eta) for spectrum in ([-4.0, 1.0], [0.0, 0.0, 1.0], [3.0], [-1.0]) for eta in (0.2, 0.47)),
    ],
)
def test_the_bound_is_above_the_distance_on_quadratics(tmp_path: Path, spectrum: list[float], eta: float) -> None:
    run, objective, _, _ = quadratic(tmp_path, spectrum, eta, count=min(60, round(4 / eta)), every=3)
    report = trajcheck.flow(run, objective, rtol=1e-6, curvature=5, out=tmp_path / "report")
    m, beta = min(spectrum), max(map(abs, spectrum))
    if eta * (beta + m) > 2 + 1e-6:
        assert "bound_estimate" not in report.flow
        assert set(reasons(report, "bound_estimate").values()) == {
            f"the rate {eta:g} is above 2 / (beta + m): steps of that size need not stay near the flow"
        }
        return
    frame = report.flow
    assert frame["bound_estimate"].notna().all()
    assert (frame["bound_estimate"] >= frame["flow_dist"] - 5 * frame["flow_error"]).all()
    assert frame["bound_estimate"].is_monotonic_increasing


def test_a_deep_linear_network(tmp_path: Path) -> None:
    """eta, eta/2, eta/5 from one init: the largest distance is proportional to eta, and below the bound."""
    network, rng = DeepLinear(), np.random.default_rng(2)
    z, start = network.sample(20, rng), 0.5 * rng.normal(size=network.size)
    etas, largest = [0.01, 0.005, 0.002], []
    for eta in etas:
        part = round(0.01 / eta)
        folder = tmp_path / str(part)
        run, objective = made(folder, network, start, z, eta, 200 * part, network.layout, every=5 * part)
        report = trajcheck.flow(run, objective, rtol=1e-7, curvature=8, wanted_distance=1e-3, out=folder / "report")
        frame, head = report.flow, report.summary["headline"]
        assert (frame["bound_estimate"] >= frame["flow_dist"]).all()
        assert frame["loss"].iloc[-1] < 0.5 * frame["loss"].iloc[0]
        assert frame["flow_error"].max() < 1e-3 * frame["flow_dist"].max()
        largest.append(head["max_flow_dist"])
        # the bound is linear in eta
        assert head["wanted"]["eta"] == pytest.approx(eta * 1e-3 / frame["bound_estimate"].iloc[-1], rel=1e-6)
        assert head["wanted"]["limited_by"] == "distance"
    slope = np.polyfit(np.log(etas), np.log(largest), 1)[0]
    assert abs(slope - 1) <= 0.05, (slope, largest)


def test_float32_gradients(tmp_path: Path) -> None:
    run, objective, hessian, start = quadratic(tmp_path)
    report = trajcheck.flow(run, objective, replay_dtype="float32", out=tmp_path / "report")
    true = np.linalg.norm(descent(hessian, start, 0.1, 40) - exact(hessian, start, report.flow["tau"]), axis=1)
    np.testing.assert_allclose(report.flow["flow_dist"], true, atol=1e-4)
    assert report.summary["replay"]["dtype"] == "float32"
    wide = trajcheck.flow(run, objective, out=tmp_path / "wide")
    assert wide.summary["replay"]["dtype"] == "float64"
    assert 0 < abs(wide.flow["flow_loss"] - report.flow["flow_loss"]).max() < 1e-4


def test_a_flow_from_a_step(tmp_path: Path) -> None:
    run, objective, hessian, start = quadratic(tmp_path)
    xs = descent(hessian, start, 0.1, 40)
    report = trajcheck.flow(run, objective, start="step:15", rtol=1e-9, curvature=5, out=tmp_path / "report")
    frame = report.flow
    assert list(frame["step"]) == list(range(15, 41))
    np.testing.assert_allclose(frame["tau"], 0.1 * np.arange(15, 41))
    thetas = exact(hessian, xs[15], 0.1 * np.arange(26))
    np.testing.assert_allclose(frame["flow_dist"], np.linalg.norm(xs[15:] - thetas, axis=1), atol=1e-7)
    np.testing.assert_allclose(frame["init_dist"], np.linalg.norm(xs[15:] - xs[15], axis=1), rtol=1e-9, atol=1e-14)
    assert frame["bound_estimate"].iloc[0] == 0 and (frame["bound_estimate"] >= frame["flow_dist"] - 1e-8).all()
    assert trajcheck.flow(run, objective, start="step:39", out=tmp_path / "two").flow["step"].tolist() == [39, 40]


def test_the_sample_run(tmp_path: Path) -> None:
    """The recorded gradient descent on logistic regression, against scipy's own solve_ivp and numpy's gradient."""
    from scipy.integrate import solve_ivp

    run = SAMPLES / "breast-cancer-gd"
    report = trajcheck.flow(
        run, f"{SAMPLES / 'objectives.py'}:breast_cancer", rtol=1e-9, curvature=50, out=tmp_path / "report"
    )
    first = load_file(run / "step-000000000.safetensors")
    features, labels = first["batch/0"], first["batch/1"]
    wide = np.hstack([features, np.ones((len(features), 1))])

    def downhill(_: float, theta: np.ndarray) -> np.ndarray:
        return -wide.T @ (1 / (1 + np.exp(-wide @ theta)) - labels) / len(labels)

    def x(step: int) -> np.ndarray:
        tensors = load_file(run / f"step-{step:09d}.safetensors")
        return np.concatenate([tensors["param/weight"].ravel(), tensors["param/bias"]])

    solved = solve_ivp(downhill, (0, 30), x(0), t_eval=report.flow["tau"], rtol=1e-11, atol=1e-13).y.T
    distance = [np.linalg.norm(x(step) - theta) for step, theta in zip(report.flow["step"], solved, strict=True)]
    np.testing.assert_allclose(report.flow["flow_dist"], distance, atol=2e-8)
    assert (report.flow["bound_estimate"] >= report.flow["flow_dist"]).all()
    assert report.summary["flow"]["recorded_gradient_disagreement"] < 1e-12

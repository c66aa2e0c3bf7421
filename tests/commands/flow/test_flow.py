"""trajcheck.flow against flows that are known, and at its edges."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from deep_linear import DeepLinear
from frames import steps_of
from handwritten import write_objective, write_run
from odd_network import Odd, squared
from places import SAMPLES
from plain_run_files import Outcome
from quadratics import Layout, Problem, Quadratic, descend, keep
from run_files import amend, describe_optimizer, write_probe
from safetensors.numpy import load_file, save_file
from scipy.integrate import quad
from scipy.linalg import expm
from torch import nn

import trajcheck
from trajcheck import Recorder
from trajcheck.commands.flow.options import FlowOptions
from trajcheck.commands.flow.sample_function import SampleFunction
from trajcheck.commands.flow.state_file import NAME, StateFile
from trajcheck.errors import ObjectiveError, RunError, StepFileError, TrajcheckError, UsageError
from trajcheck.metrics.columns import column
from trajcheck.metrics.flow import bound, constant_rate

Cli = Callable[..., Outcome]
LAYOUT: Layout = {"a.weight": (2, 2), "b": (2,)}
BOWL = [0.05, 0.3, 0.7, 1.0, 2.0, 4.0]
SADDLE = [-0.5, -0.1, 0.2, 1.0, 2.0, 3.0]


def made(
    folder: Path,
    problem: Problem,
    start: np.ndarray,
    z: Any,
    eta: float,
    count: int,
    layout: Layout,
    every: int = 1,
    **options: Any,
) -> tuple[Path, str]:
    """A run of gradient descent on one batch, that is stored once, and its objective."""
    records = descend(problem, start, [z] * count, [eta] * count)
    steps = sorted({*range(0, count, every), count})
    folder.mkdir(parents=True, exist_ok=True)
    run = write_run(folder / "run", keep(records, steps), layout, batch_once=True, **options)
    return run, write_objective(folder / "objective.py", problem, layout)


def quadratic(folder: Path, spectrum: Sequence[float] = BOWL, eta: float = 0.1, count: int = 40, **options: Any) -> Any:
    """The run, the objective, H and x_0 of f = 1/2 x^T H x."""
    problem = Quadratic.with_spectrum(spectrum, seed=7)
    start = np.random.default_rng(8).normal(size=problem.size)
    layout: Layout = LAYOUT if problem.size == 6 else {"x": (problem.size,)}
    run, objective = made(folder, problem, start, np.zeros((1, problem.size)), eta, count, layout, **options)
    return run, objective, problem.hessian, start


def descent(hessian: np.ndarray, start: np.ndarray, eta: float, count: int) -> np.ndarray:
    return np.array([np.linalg.matrix_power(np.eye(len(start)) - eta * hessian, k) @ start for k in range(count + 1)])


def exact(hessian: np.ndarray, start: np.ndarray, taus: Any) -> np.ndarray:
    return np.array([expm(-hessian * tau) @ start for tau in taus])


def reasons(report: trajcheck.FlowReport, name: str) -> dict[int, str]:
    """By step, why undefined.csv says that a cell is empty."""
    entries = report.undefined[report.undefined["column"] == name]
    return {
        s: str(why) for steps, why in zip(entries["steps"], entries["reason"], strict=True) for s in steps_of(steps)
    }


# -- known flows -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("eta", [0.02, 0.2, 0.47])
@pytest.mark.parametrize("spectrum", [BOWL, SADDLE, [-4.0, 1.0], [0.0, 0.0, 1.0], [3.0], [-1.0]])
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
    """eta, eta/2, eta/5, eta/10 from one init: the largest distance is proportional to eta, and below the bound."""
    network, rng = DeepLinear(), np.random.default_rng(2)
    z, start = network.sample(20, rng), 0.5 * rng.normal(size=network.size)
    etas, largest = [0.01, 0.005, 0.002, 0.001], []
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


# -- the bound's parts -----------------------------------------------------------------------------------------------


def bound_columns(low: list[float | None], high: list[float | None], norm: list[float]) -> dict[str, Any]:
    zero = [None if value is None else 0.0 for value in low]
    return {
        "flow_grad_norm": column(norm),
        **{"lambda_min": column(low, ["" if v is not None else "not asked" for v in low])},
        **{name: column(zero, ["" if v is not None else "-" for v in low]) for name in ("lambda_min_residual",)},
        **{"lambda_max": column(high, ["" if v is not None else "not asked" for v in high])},
        **{"lambda_max_residual": column(zero, ["" if v is not None else "-" for v in low])},
    }


def test_the_bound_is_its_formula() -> None:
    """Against quadrature, m being the smaller of the neighbours, beta and gamma the largest up to the next."""
    times = np.array([0.0, 0.5, 1.5, 2.0, 4.0, 4.5])
    low, high = [1.0, None, -0.5, None, 2.0, None], [3.0, None, 4.0, None, 3.5, None]
    found = bound(times, bound_columns(low, high, [2.0, 1.0, 5.0, 4.0, 3.0, 9.0]))

    def m(r: float) -> float:
        return -0.5

    def integral(s: float) -> float:
        return float(quad(lambda u: np.exp(-quad(m, u, s)[0]), 0, s)[0])

    beta, gamma = [3.0, 4.0, 4.0, 4.0, 4.0], [2.0, 5.0, 5.0, 5.0, 5.0]
    expected = [b * g * integral(s) for b, g, s in zip(beta, gamma, times, strict=False)]
    np.testing.assert_allclose(found.per_rate.values[:5], expected, rtol=1e-9)
    assert found.per_rate.reasons[5].startswith("after the last time") and not found.largest_rate.defined[5]
    np.testing.assert_allclose(found.largest_rate.values[:5], [2 / 4, 2 / 5, 2 / 5, 2 / 6, 2 / 6])
    np.testing.assert_allclose(found.at(0.1).values[:5], 0.1 * np.array(expected), rtol=1e-9)
    assert list(found.at(0.39).defined) == [True, True, True, False, False, False]


def test_the_maximum_over_earlier_times_counts() -> None:
    """Where m turns large the integral shrinks, and the bound does not."""
    times = np.array([0.0, 1.0, 2.0, 3.0])
    found = bound(times, bound_columns([0.0, 0.0, 50.0, 50.0], [60.0] * 4, [1.0] * 4))
    np.testing.assert_allclose(found.per_rate.values, [0, 60, 120, 120])


def test_an_unstable_flow_overflows_with_a_reason() -> None:
    found = bound(np.array([0.0, 1.0]), bound_columns([-1e4, -1e4], [1.0, 1.0], [1.0, 1.0]))
    assert "overflows" in found.per_rate.reasons[1] and found.per_rate.defined[0]


def test_the_rate_is_constant_or_there_is_none() -> None:
    tau = np.cumsum([0.0] + [0.1] * 10)
    assert constant_rate(list(range(11)), list(tau), [0.1] * 10)[0] == 0.1
    assert constant_rate([0, 5, 10], [0.0, None, 1.0], [None, None])[0] == pytest.approx(0.1)
    for taus, rates in (([0.0, 0.5, 0.9], [0.1] * 2), ([0.0, 0.5, 1.0], [0.1, 0.2]), ([0.0, 0.0, 0.0], [0.0, 0.0])):
        eta, reason = constant_rate([0, 5, 10], taus, rates)
        assert eta is None and "not constant" in reason
    assert constant_rate([3], [0.3], [])[0] is None


def test_a_rate_that_changes_has_no_bound_but_a_wanted_one(tmp_path: Path) -> None:
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    rates = [0.1] * 5 + [0.05] * 5
    records = descend(problem, np.ones(6), [np.zeros((1, 6))] * 10, rates)
    run = write_run(tmp_path / "run", records, LAYOUT)
    objective = write_objective(tmp_path / "objective.py", problem, LAYOUT)
    report = trajcheck.flow(run, objective, curvature=3, wanted_distance=10.0, out=tmp_path / "report")
    assert "bound_estimate" not in report.flow and len(reasons(report, "bound_estimate")) == 11
    assert "not constant" in reasons(report, "bound_estimate")[0]
    wanted = report.summary["headline"]["wanted"]
    assert 0 < wanted["eta"] <= 2 / (4.0 + 0.05) + 1e-6 and not report.incomplete
    huge = trajcheck.flow(run, objective, curvature=3, wanted_distance=1e9, out=tmp_path / "report")
    assert huge.summary["headline"]["wanted"] == pytest.approx(
        {"distance": 1e9, "eta": 2 / (4.0 + 0.05), "limited_by": "stability"}
    )


# -- going on after a kill, and the cap ------------------------------------------------------------------------------


def csv(folder: Path) -> bytes:
    return (folder / "flow.csv").read_bytes() + (folder / "undefined.csv").read_bytes()


@pytest.fixture
def kept_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is saved at every recorded time, however fast they come."""
    save = StateFile.save
    monkeypatch.setattr(StateFile, "save", lambda self, progress, now=False: save(self, progress, now=True))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 9, 30, 75, 110])
def test_a_killed_flow_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_always: None, after: int
) -> None:
    run, objective, _, _ = quadratic(tmp_path, SADDLE)
    whole = trajcheck.flow(run, objective, curvature=6, out=tmp_path / "whole")
    evaluate = SampleFunction.loss_and_gradient
    count = itertools.count()

    def killed(self: SampleFunction, theta: np.ndarray, where: str) -> Any:
        if next(count) == after:
            raise Killed
        return evaluate(self, theta, where)

    report = tmp_path / "report"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SampleFunction, "loss_and_gradient", killed)
        trajcheck.flow(run, objective, curvature=6, out=report)
    assert not (report / "flow.csv").exists() and (report / NAME).exists() == (after > 1)
    found = trajcheck.flow(run, objective, curvature=6, out=report)
    assert csv(report) == csv(tmp_path / "whole")
    assert (found.summary["flow"]["resumed_at_step"] is not None) == (after > 1)
    counts = [each.summary["flow"]["gradient_evaluations"] for each in (found, whole)]
    assert counts[0] == counts[1]
    assert sorted(path.name for path in report.iterdir()) == ["flow.csv", "summary.json", "undefined.csv"]


def test_a_process_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path, SADDLE, count=400)
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text().replace("import operator\n", "import operator\nimport os\nimport signal\n")
        + """

CALLS = [0]


def deadly():
    model, inner = objective()

    def loss(model, batch):
        CALLS[0] += 1
        if CALLS[0] == int(os.environ.get("KILLED_AFTER", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(model, batch)

    return model, loss
"""
    )

    spec, report = f"{path}:deadly", tmp_path / "report"
    trajcheck.flow(run, spec, rtol=1e-6, out=tmp_path / "whole")
    arguments = ["flow", str(run), "--objective", spec, "--out", str(report), "--rtol", "1e-6"]
    killed = subprocess.run(
        [sys.executable, "-m", "trajcheck", *arguments],
        env={**os.environ, "PYTHONPATH": str(SAMPLES.parent), "KILLED_AFTER": "500"},
    )
    assert killed.returncode == -signal.SIGKILL
    assert (report / NAME).exists() and not (report / "flow.csv").exists()
    found = trajcheck.flow(run, spec, rtol=1e-6, out=report)
    assert csv(report) == csv(tmp_path / "whole")
    assert found.summary["flow"]["resumed_at_step"] > 0
    assert sorted(each.name for each in report.iterdir()) == ["flow.csv", "summary.json", "undefined.csv"]


def test_the_cap_keeps_what_was_computed_and_more_goes_on(tmp_path: Path, cli: Cli) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    whole = trajcheck.flow(run, objective, curvature=7, out=tmp_path / "whole")
    needed = whole.summary["flow"]["gradient_evaluations"]
    command = (
        "flow",
        run,
        "--objective",
        objective,
        "--curvature",
        7,
        "--out",
        tmp_path / "report",
        "--max-evaluations",
    )
    outcome = cli(*command, needed // 2, "--wanted-distance", 1)
    assert outcome.code == 4
    frame = pd.read_csv(tmp_path / "report" / "flow.csv")
    reached = frame[frame["flow_dist"].notna()]
    step, tau = reached["step"].iloc[-1], reached["tau"].iloc[-1]
    assert 0 < step < 40 and f"step {step}, tau = {tau:.6g}, the last" in outcome.err
    assert f"cap of {needed // 2:,} gradient" in outcome.err and "--max-evaluations" in outcome.err
    assert len(frame) == 41 and frame[["tau", "loss", "init_dist"]].notna().all().all()
    undefined = pd.read_csv(tmp_path / "report" / "undefined.csv")
    why = undefined[(undefined["column"] == "flow_dist")]
    assert why["reason"].tolist() == ["the integration ended before this time"]
    assert sorted(steps_of(why["steps"].iloc[0])) == list(range(step + 1, 41))
    same = reached.reset_index(drop=True)
    pd.testing.assert_frame_equal(
        same[["flow_dist", "flow_error"]], whole.flow.loc[same.index, ["flow_dist", "flow_error"]]
    )
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["flow"]["last_tau_reached"] == tau
    again = cli(*command, needed - 1)
    assert again.code == 4
    done = cli(*command, needed)
    assert done.code == 0, done
    assert csv(tmp_path / "report") == csv(tmp_path / "whole")
    assert not (tmp_path / "report" / NAME).exists()


def test_a_cap_that_leaves_no_room_at_all(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    report = trajcheck.flow(run, objective, max_evaluations=1, out=tmp_path / "report")
    assert report.flow["flow_dist"].notna().sum() == 1 and "step 0, tau = 0" in report.incomplete[0]


def interrupted(folder: Path) -> tuple[Path, str, Path, trajcheck.FlowReport]:
    """A run whose flow was ended by its cap, so that its state is there."""
    run, objective, _, _ = quadratic(folder)
    report = folder / "report"
    return run, objective, report, trajcheck.flow(run, objective, max_evaluations=30, out=report)


def test_the_state_of_another_question_is_not_used(tmp_path: Path) -> None:
    run, objective, out, _ = interrupted(tmp_path)

    def resumed(**options: Any) -> Any:
        saved = (out / NAME).read_bytes()
        found = trajcheck.flow(run, options.pop("objective", objective), out=out, **options)
        (out / NAME).write_bytes(saved)
        return found.summary["flow"]["resumed_at_step"]

    assert resumed() and resumed(max_evaluations=10**6) and resumed(start="step:0")
    assert not resumed(rtol=1e-5) and not resumed(atol=1e-5) and not resumed(curvature=10)
    assert not resumed(start="step:1") and not resumed(replay_dtype="float32")
    path = Path(objective.rpartition(":")[0])
    path.write_text(path.read_text() + "\n# a change\n")
    assert not resumed()


def test_a_state_whose_objective_has_other_values_is_not_used(tmp_path: Path) -> None:
    """Its text is the same, and what it reads is not."""
    run, objective, _, _ = quadratic(tmp_path)
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text().replace("import operator\n", "import operator\nimport pathlib\n")
        + """

def from_file():
    scale = float(pathlib.Path(__file__ + ".scale").read_text())
    model, inner = objective()
    return model, lambda model, batch: scale * inner(model, batch)
"""
    )
    scale = Path(f"{path}.scale")
    scale.write_text("1.0")
    spec, out = f"{path}:from_file", tmp_path / "report"
    trajcheck.flow(run, spec, max_evaluations=30, out=out)
    scale.write_text("0.5")
    found = trajcheck.flow(run, spec, out=out)
    assert found.summary["flow"]["resumed_at_step"] is None
    assert any("began anew" in warning for warning in found.summary["warnings"])
    fresh = trajcheck.flow(run, spec, out=tmp_path / "fresh")
    pd.testing.assert_frame_equal(found.flow, fresh.flow)


@pytest.mark.parametrize("damage", ["truncated", "shape", "text"])
def test_a_damaged_state_is_not_used(tmp_path: Path, damage: str) -> None:
    run, objective, out, _ = interrupted(tmp_path)
    path = out / NAME
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "text":
        save_file({"theta/0": np.zeros(6)}, path, {"trajcheck": "{}"})
    else:
        text = json.loads(_metadata(path)["trajcheck"])
        save_file({"theta/0": np.zeros(5), "theta/1": np.zeros(6)}, path, {"trajcheck": json.dumps(text)})
    found = trajcheck.flow(run, objective, out=out)
    assert any("could not be used" in warning for warning in found.summary["warnings"])
    whole = trajcheck.flow(run, objective, out=tmp_path / "whole")
    pd.testing.assert_frame_equal(found.flow, whole.flow)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())


# -- which sample ----------------------------------------------------------------------------------------------------

DATA = """

def with_data():
    return (*objective(), [torch.zeros(2, 6, dtype=torch.float64), torch.ones(1, 6, dtype=torch.float64)])
"""


def test_samples(tmp_path: Path) -> None:
    """full is the mean over the examples, probe the mean over the batches, own the batch; each moves the minimum."""
    run, objective, hessian, start = quadratic(tmp_path)
    path = Path(objective.rpartition(":")[0])
    path.write_text(path.read_text() + DATA)
    probes = [np.full((2, 6), 2.0), np.zeros((4, 6))]
    write_probe(run, probes)
    taus = 0.1 * np.arange(41)
    xs = descent(hessian, start, 0.1, 40)
    for sample, name, centre in (("own", "objective", 0), ("probe", "objective", 1), ("full", "with_data", 1 / 3)):
        report = trajcheck.flow(run, f"{path}:{name}", sample=sample, rtol=1e-7, curvature=20, out=tmp_path / sample)
        thetas = centre + exact(hessian, start - centre, taus)
        np.testing.assert_allclose(report.flow["flow_dist"], np.linalg.norm(xs - thetas, axis=1), atol=1e-5)
        np.testing.assert_allclose(report.flow["lambda_max"].dropna(), 4.0, rtol=1e-6)
        assert report.summary["flow"]["sample"] == sample
        same = sample == "own"
        assert any("not gradient descent on sample" in each for each in report.summary["warnings"]) != same
    losses = [np.mean([(p - start) @ hessian @ (p - start) / 2 for p in probe]) for probe in probes]
    probe = pd.read_csv(tmp_path / "probe" / "flow.csv")
    assert probe["loss"][0] == pytest.approx(np.mean(losses))


def test_the_sample_that_is_taken_when_none_is_named(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path / "own")
    write_probe(run, [np.zeros((1, 6))])
    path = Path(objective.rpartition(":")[0])
    path.write_text(path.read_text() + DATA)

    def taken(run: Path, name: str) -> str:
        return str(
            trajcheck.flow(run, f"{path}:{name}", out=tmp_path / f"report-{run.name}-{name}").summary["flow"]["sample"]
        )

    assert taken(run, "objective") == "own" and taken(run, "with_data") == "full"
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    batches = problem.samples(10, np.random.default_rng(0))
    other = write_run(tmp_path / "minibatches", descend(problem, np.ones(6), batches, [0.1] * 10), LAYOUT)
    with pytest.raises(
        RunError, match=r"no one sample for a flow.*the batch of step 1 is not that of step 0.*--sample full"
    ):
        taken(other, "objective")
    with pytest.raises(RunError, match=r"--sample own needs one full batch.*the batch of step 1 is not"):
        trajcheck.flow(other, objective, sample="own", out=tmp_path / "none")
    with pytest.raises(RunError, match="no probe batches"):
        trajcheck.flow(other, objective, sample="probe", out=tmp_path / "none")
    with pytest.raises(ObjectiveError, match="needs the data set"):
        trajcheck.flow(other, objective, sample="full", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    write_probe(other, [np.zeros((1, 6))])
    assert taken(other, "objective") == "probe"


def test_a_batch_stored_again_and_again_is_one(tmp_path: Path) -> None:
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    records = descend(problem, np.ones(6), [np.zeros((1, 6))] * 10, [0.1] * 10)
    run = write_run(tmp_path / "run", records, LAYOUT)
    objective = write_objective(tmp_path / "objective.py", problem, LAYOUT)
    assert trajcheck.flow(run, objective, out=tmp_path / "report").summary["flow"]["sample"] == "own"


# -- what the summary warns of ---------------------------------------------------------------------------------------


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


# -- models ----------------------------------------------------------------------------------------------------------


ODD = """
from odd_network import Odd, squared


def plain():
    return Odd().double(), squared


def dropped():
    return Odd(0.5).double(), squared
"""


def record_odd(folder: Path, dropout: float, count: int, rate: float) -> tuple[Path, nn.Module, Any]:
    model = Odd(dropout).double()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    stream = torch.Generator().manual_seed(1)
    batch = tuple(torch.randn(16, n, generator=stream, dtype=torch.float64) for n in (3, 4))
    with Recorder(folder / "run", model, optimizer, every=1) as recorder:
        for _ in range(count):
            optimizer.zero_grad()
            loss = squared(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
    (folder / "odd.py").write_text(ODD)
    return folder / "run", model, batch


def test_frozen_tied_and_normalised(tmp_path: Path) -> None:
    """The flow moves what trains, tied weights as one; smaller steps come nearer to it."""
    distances = []
    for part in (1, 4):
        folder = tmp_path / str(part)
        folder.mkdir()
        run, _, _ = record_odd(folder, 0.0, 20 * part, 0.1 / part)
        report = trajcheck.flow(
            run, f"{folder / 'odd.py'}:plain", rtol=1e-6, curvature=10 * part, out=folder / "report"
        )
        assert not any("not gradient descent" in warning for warning in report.summary["warnings"])
        assert report.summary["flow"]["random"] is False and report.summary["run"]["parameters"] == 4 + 8 + 16 + 4 + 4
        assert report.flow["flow_dist"].max() < 0.2 * report.flow["init_dist"].max()
        distances.append(report.summary["headline"]["last_flow_dist"])
    assert distances[0] / distances[1] == pytest.approx(4, rel=0.25)


def test_dropout_keeps_to_one_draw(tmp_path: Path) -> None:
    run, _, _ = record_odd(tmp_path, 0.5, 10, 0.1)
    reports = [trajcheck.flow(run, f"{tmp_path / 'odd.py'}:dropped", out=tmp_path / name) for name in ("a", "b")]
    pd.testing.assert_frame_equal(reports[0].flow, reports[1].flow)
    assert reports[0].summary["flow"]["random"] is True
    assert any("one draw" in warning for warning in reports[0].summary["warnings"])
    assert reports[0].flow["flow_loss"].is_monotonic_decreasing  # a flow of one function goes down
    # at the start the draw is the recorded one
    assert reports[0].summary["flow"]["recorded_gradient_disagreement"] < 1e-12


def test_buffers_are_those_of_the_start(tmp_path: Path) -> None:
    """A buffer that scales the loss: 1 in the objective's model, 0.5 where the flow starts, 3 later."""
    run, objective, hessian, start = quadratic(tmp_path)
    for step in range(41):
        amend(run, step, {"buffer/scale": np.array(0.5 if step < 3 else 3.0)})
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text()
        + """

def scaled():
    model, inner = objective()
    model.register_buffer("scale", torch.ones((), dtype=torch.float64))
    return model, lambda model, batch: model.scale * inner(model, batch)
"""
    )
    frame = trajcheck.flow(run, f"{path}:scaled", rtol=1e-8, out=tmp_path / "report").flow
    thetas, xs = exact(0.5 * hessian, start, frame["tau"]), descent(hessian, start, 0.1, 40)
    np.testing.assert_allclose(frame["flow_dist"], np.linalg.norm(xs - thetas, axis=1), atol=1e-6)
    np.testing.assert_allclose(frame["loss"], [x @ hessian @ x / 4 for x in xs], rtol=1e-9, atol=1e-12)


# -- edges and bad input ---------------------------------------------------------------------------------------------


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
    meta = {**json.loads(_metadata(path)["trajcheck"]), **changes}
    meta = {key: value for key, value in meta.items() if value is not None}
    save_file(load_file(path), path, {"trajcheck": json.dumps(meta)})


def test_tau_missing(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    whole = trajcheck.flow(run, objective, out=tmp_path / "whole").flow
    for step in (3, 40):
        rewrite(run, step, tau=None)
    report = trajcheck.flow(run, objective, curvature=1, out=tmp_path / "report")
    assert set(reasons(report, "flow_dist")) == set(reasons(report, "tau")) == {3, 40}
    assert reasons(report, "bound_estimate") == {
        3: "no tau was recorded at this step",
        40: "no tau was recorded at this step",
    }
    assert report.flow["loss"].notna().all() and report.flow["init_dist"].notna().all()
    kept = report.flow["flow_dist"].notna()
    np.testing.assert_allclose(report.flow["flow_dist"][kept], whole["flow_dist"][kept], atol=1e-4)
    rewrite(run, 0, tau=None)
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
        meta = json.loads(_metadata(run / f"step-{step:09d}.safetensors")["trajcheck"])
        rewrite(run, step, tau=meta["tau"] * 2, lr=meta["lr"] * 2 if "lr" in meta else None)
    pd.testing.assert_frame_equal(trajcheck.flow(run, objective, curvature=10, out=tmp_path / "report").flow, whole)


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
    refused(ObjectiveError, "no such|there is no|objective.pt2", objective="run")
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


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """reports/flow/<run>; the report of an analysis is never overwritten."""
    run, objective, _, _ = quadratic(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli("flow", "run", "--objective", objective, "--quiet").code == 0
    assert sorted(path.name for path in Path("reports/flow/run").iterdir()) == [
        "flow.csv",
        "summary.json",
        "undefined.csv",
    ]
    assert cli("analyze", "run", "--quiet").code == 0
    refused = cli("flow", "run", "--objective", objective, "--out", "reports/run", "--quiet")
    assert refused.code == 5 and "another run" in refused.err
    assert cli("analyze", "run", "--out", "reports/flow/run", "--quiet").code == 5
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    inside = cli("flow", "run", "--objective", objective, "--out", "run/report", "--quiet")
    assert inside.code == 5 and before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    quadratic(tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome = cli("flow", "run", "--objective", "missing.py:x", "--curvature", "10", "--dry-run")
    assert outcome.code == 0 and not Path("reports").exists()
    assert "41 recorded" in outcome.out and "100,000 gradients at most" in outcome.out and "5 Hessians" in outcome.out
    assert all(len(line) <= 80 for line in outcome.out.splitlines())
    assert cli("flow", "run", "--objective", "missing.py:x", "--from", "step:99", "--dry-run").code == 3


def test_the_terminal_fits_80_columns(tmp_path: Path, cli: Cli) -> None:
    run, objective, _, _ = quadratic(tmp_path, SADDLE, eta=0.03, count=300)
    describe_optimizer(run, "Adam")
    arguments = ("flow", run, "--objective", objective, "--curvature", 7, "--wanted-distance", 0.01)
    outcome = cli(*arguments, "--out", tmp_path / "report")
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if str(tmp_path) not in line]
    assert all(len(line) <= 80 for line in lines) and any("bound" in line for line in lines), outcome.out
    assert "wanted" in outcome.out and "warning" in outcome.out
    assert cli(*arguments, "--out", tmp_path / "report", "--quiet").out == ""


def test_the_function_stays_one_when_its_modules_are_imported() -> None:
    import trajcheck.cli.flow
    import trajcheck.commands.flow.command
    import trajcheck.metrics.flow
    import trajcheck.reports.terminal.flow

    assert callable(trajcheck.flow) and trajcheck.flow is trajcheck.commands.flow.command.flow
    assert not (Path(trajcheck.__file__).parent / "flow.py").exists()


def test_option_defaults_agree() -> None:
    """Those of the function, the options and the command line."""
    import inspect

    from trajcheck.cli.flow import flow_command

    options = FlowOptions("x.py:f")
    for function in (trajcheck.flow, flow_command):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in options.__dataclass_fields__ and name != "objective":
                assert parameter.default == getattr(options, name), (function, name)


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

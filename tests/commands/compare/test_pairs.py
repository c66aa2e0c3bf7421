"""Which records of two runs are paired: by step, by time, by loss."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from dense import Record
from dense_compare import Matched, along_line, compared
from quadratics import Quadratic
from two_runs import NETWORK, assert_accounted, assert_columns, both_sides, network_objective, network_records, written

import trajcheck
from trajcheck.scalars.pairs import nearest_losses


def gradient_descent(hessian: np.ndarray, start: np.ndarray, eta: float, time: float) -> list[Record]:
    """x_k = (I - eta H)^k x_0 in closed form, by the eigenvalues of H; tau summed as a recorder sums it."""
    values, basis = np.linalg.eigh(hessian)
    count, tau, records = round(time / eta), 0.0, []
    for k in range(count + 1):
        x = basis @ ((1 - eta * values) ** k * (basis.T @ start))
        g = None if k == count else hessian @ x
        records.append(Record(k, x, g, None if k == count else eta, tau, loss=float(x @ hessian @ x) / 2))
        tau += eta
    return records


def test_learning_rates_at_equal_time_as_in_closed_form(tmp_path: Path) -> None:
    """EC's figure on a quadratic: eta against eta/2, eta/5, eta/10 from one init."""
    quadratic = Quadratic.with_spectrum([0.1, 0.7, 2.0, -0.2], seed=3)
    start, eta = np.random.default_rng(4).normal(size=4), 0.1
    parts = (1, 2, 5, 10)
    runs = [
        written(tmp_path, f"by-{part}", gradient_descent(quadratic.hessian, start, eta / part, 3.0), None)
        for part in parts
    ]
    found = trajcheck.compare(*runs, align="time", out=tmp_path / "report")
    values, basis = np.linalg.eigh(quadratic.hessian)
    largest = []
    for part, run in zip(parts[1:], runs[1:], strict=True):
        rows = found.pairs[found.pairs["run_b"] == str(run)]
        assert rows["step_a"].tolist() == list(range(31))
        assert rows["step_b"].tolist() == [part * k for k in range(31)]
        assert (rows["tau_gap"] < 1e-12).all() and not rows["interpolated"].any()
        k = np.arange(31)[:, None]
        difference = ((1 - eta * values) ** k - (1 - eta / part * values) ** (part * k)) * (basis.T @ start)
        np.testing.assert_allclose(rows["dist"], np.linalg.norm(difference, axis=1), rtol=1e-9, atol=1e-13)
        assert found.summary["inits"][str(run)]["one"] is True
        largest.append(rows["dist"].max())
    assert largest == sorted(largest)  # the smaller the other rate, the farther from eta's iterates
    backwards = trajcheck.compare(runs[-1], runs[0], align="time", out=tmp_path / "backwards").pairs
    assert backwards["step_a"].tolist() == [10 * k for k in range(31)]


def test_times_between_records_are_not_invented_but_when_asked(tmp_path: Path) -> None:
    hessian = np.diag([1.0, 0.3])
    a, b = (gradient_descent(hessian, np.ones(2), eta, 0.9) for eta in (0.1, 0.15))
    run_a, run_b = written(tmp_path, "a", a, None), written(tmp_path, "b", b, None)
    exact = trajcheck.compare(run_a, run_b, align="time", out=tmp_path / "exact")
    assert exact.pairs["step_a"].tolist() == [0, 3, 6, 9]
    assert exact.pairs["step_b"].tolist() == [0, 2, 4, 6]
    between = trajcheck.compare(run_a, run_b, align="time", interpolate=True, out=tmp_path / "between")
    pairs: list[Matched] = []
    for i in range(10):
        j, rest = divmod(2 * i, 3)
        pairs.append((i, j, rest / 3))
    assert_columns(between.pairs, compared(a, b, pairs))
    assert between.pairs["interpolated"].tolist() == [i % 3 != 0 for i in range(10)]
    assert between.pairs["tau_gap"].max() < 1e-15
    marked = between.pairs["interpolated"]
    assert between.pairs.loc[marked, ["loss_b", "ref_dist_b", "rsi_b"]].isna().all(axis=None)
    assert between.pairs.loc[marked, "ref_dist_a"].notna().all()
    assert_accounted(between)
    assert between.summary["headline"][str(run_b)]["interpolated"] == 6


def test_the_line_ends_at_the_interpolated_point(tmp_path: Path) -> None:
    a, b = network_records(1, 6, 0.1), network_records(2, 4, 0.15)
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b)
    objective = network_objective(tmp_path)
    found = trajcheck.compare(
        run_a, run_b, align="time", interpolate=True, objective=objective, line=1, out=tmp_path / "report"
    )
    pairs = [(i, 2 * i // 3, 2 * i % 3 / 3) for i in range(7)]
    assert_columns(found.pairs, along_line(a, b, pairs, NETWORK.f, 1))
    assert_columns(found.pairs, {k: v for k, v in both_sides(a, b, pairs, NETWORK).items() if "resol" not in k}, 1e-8)


def test_a_tolerance_matches_times_that_are_only_near(tmp_path: Path) -> None:
    hessian = np.diag([1.0, 0.3])
    a, b = (gradient_descent(hessian, np.ones(2), eta, 1.0) for eta in (0.1, 0.101))
    run_a, run_b = written(tmp_path, "a", a, None), written(tmp_path, "b", b, None)
    strict = trajcheck.compare(run_a, run_b, align="time", out=tmp_path / "strict").pairs
    assert strict["step_a"].tolist() == [0]
    loose = trajcheck.compare(run_a, run_b, align="time", tolerance=0.0055, out=tmp_path / "loose").pairs
    assert loose["step_b"].tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(loose["tau_gap"], 0.001 * np.arange(6), atol=1e-12)
    # each record once, even where several are near enough
    wide = trajcheck.compare(run_a, run_b, align="time", tolerance=10.0, out=tmp_path / "wide").pairs
    assert wide["step_a"].tolist() == wide["step_b"].tolist() == list(range(11))
    coarse = written(tmp_path, "c", gradient_descent(hessian, np.ones(2), 0.24, 0.96), None)
    once = trajcheck.compare(run_a, coarse, align="time", tolerance=10.0, out=tmp_path / "once").pairs
    assert once["step_a"].tolist() == [0, 2, 5, 7, 10] and once["step_b"].tolist() == [0, 1, 2, 3, 4]


def test_rounded_sums_of_many_rates_are_one_time(tmp_path: Path) -> None:
    """tau of 10,000 additions of 0.1, and of as many of 0.05 twice over, are not the same number."""
    taus = np.cumsum(np.full(10_001, 0.1)) - 0.1, np.cumsum(np.full(20_001, 0.05)) - 0.05
    a = [Record(10 * k, np.array([k + 1.0]), tau=float(taus[0][10 * k])) for k in range(1001)]
    b = [Record(20 * k, np.array([k + 2.0]), tau=float(taus[1][20 * k])) for k in range(1001)]
    assert any(x.tau != y.tau for x, y in zip(a, b, strict=True))
    runs = written(tmp_path, "a", a[::50], None), written(tmp_path, "b", b[::50], None)
    assert len(trajcheck.compare(*runs, align="time", out=tmp_path / "report").pairs) == 21


def test_records_of_one_time_are_matched_in_their_order(tmp_path: Path) -> None:
    """A rate of 0, or a step that a loss scaler skipped, leaves two records at one tau."""
    records = [Record(t, np.array([1.0, tau]), tau=tau) for t, tau in enumerate([0.0, 0.0, 0.1, 0.2, 0.2])]
    run = written(tmp_path, "a", records, None)
    found = trajcheck.compare(run, shutil.copytree(run, tmp_path / "b"), align="time", out=tmp_path / "report")
    assert found.pairs["step_a"].tolist() == found.pairs["step_b"].tolist() == list(range(5))


def test_losses_are_matched_in_order_and_as_near_as_can_be() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.normal(size=rng.integers(1, 8)), rng.normal(size=rng.integers(1, 6))
        found = nearest_losses(a, b)
        assert len(found) == len(a) and found == sorted(found)
        every = itertools.combinations_with_replacement(range(len(b)), len(a))
        best = min(sum(abs(a - b[list(each)])) for each in every)
        assert sum(abs(a - b[found])) == pytest.approx(best, abs=1e-12)
    a = rng.normal(size=90)
    assert nearest_losses(a, a) == list(range(90))


def test_by_loss(tmp_path: Path) -> None:
    hessian = np.diag([1.0, 0.3])
    a, b = (gradient_descent(hessian, np.ones(2), eta, 1.0) for eta in (0.1, 0.05))
    b[4].loss = None
    run_a, run_b = written(tmp_path, "a", a, None), written(tmp_path, "b", b, None)
    found = trajcheck.compare(run_a, run_b, align="loss", out=tmp_path / "report")
    losses = np.array([np.nan if record.loss is None else record.loss for record in b])
    nearest = [int(np.nanargmin(abs(losses - record.loss))) for record in a]  # both fall all the way
    assert found.pairs["step_b"].tolist() == nearest
    assert_columns(found.pairs, compared(a, b, [(i, j, 0.0) for i, j in enumerate(nearest)]))
    near = trajcheck.compare(run_a, run_b, align="loss", tolerance=1e-3, out=tmp_path / "near").pairs
    assert (abs(near["loss_a"] - near["loss_b"]) <= 1e-3).all() and 0 < len(near) < len(a)


def test_steps_choose_records_of_both(tmp_path: Path) -> None:
    runs = [written(tmp_path, name, network_records(seed)) for name, seed in (("a", 1), ("b", 2))]
    chosen = trajcheck.compare(*runs, steps="2:9:3", out=tmp_path / "chosen").pairs
    assert chosen["step_a"].tolist() == [2, 5, 8]
    for run, other, letter in ((runs[0], runs[1], "a"), (runs[1], runs[0], "b")):
        references = trajcheck.analyze(run, [str(other)], steps="2:9:3", out=tmp_path / f"analyzed-{letter}").references
        for name in ("ref_dist", "rsi", "eb", "cos", "convexity_num"):
            np.testing.assert_array_equal(chosen[f"{name}_{letter}"], references[name])


def test_steps_choose_records_of_the_first_run_where_numbers_do_not_match(tmp_path: Path) -> None:
    hessian = np.diag([1.0, 0.3])
    runs = [
        written(tmp_path, name, gradient_descent(hessian, np.ones(2), eta, 1.0), None)
        for name, eta in (("a", 0.1), ("b", 0.05))
    ]
    chosen = trajcheck.compare(*runs, align="time", steps="3:9:2", out=tmp_path / "chosen").pairs
    assert chosen["step_a"].tolist() == [3, 5, 7] and chosen["step_b"].tolist() == [6, 10, 14]
    references = trajcheck.analyze(runs[1], [str(runs[0])], out=tmp_path / "analyzed").references
    sums = references.set_index("step")["convexity_num"]
    np.testing.assert_array_equal(chosen["convexity_num_b"], [sums[6], sums[10], sums[14]])

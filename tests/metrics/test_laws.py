"""trajcheck.analyze: laws of the definitions that hold whatever the numbers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense import Nearest, Record, Reference, dense, flat
from frames import assert_close, col, towards
from handwritten import cut, write_objective, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Logistic, TanhNetwork
from numpy.typing import NDArray
from quadratics import Layout, Problem, Quadratic, cosine_rates, descend, keep, pure_noise
from safetensors.numpy import save_file

import trajcheck
from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.resolution import BOUND

few = settings(max_examples=6, deadline=None)
spectra = st.lists(st.floats(0.05, 5.0), min_size=2, max_size=6)
seeds = st.integers(0, 2**32 - 1)


def analyzed(
    records: Sequence[Record],
    problem: Problem | None = None,
    refs: Sequence[str] = ("final",),
    layout: Layout | None = None,
    ref_gradients: bool = False,
    point: np.ndarray | None = None,
    loss_floor: float | None = None,
    **how_written: Any,
) -> Any:
    """Written, analyzed and forgotten; `point` adds the reference "point.safetensors"."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layout = layout or {"x": (flat(records[0].x).size,)}
        run = write_run(folder / "run", records, layout, **how_written)
        specs = list(refs)
        if point is not None:
            save_file(cut(point, layout), folder / "point.safetensors")
            specs.append(str(folder / "point.safetensors"))
        report = trajcheck.analyze(
            run,
            refs=specs,
            objective=None if problem is None else write_objective(folder / "objective.py", problem, layout),
            ref_gradients=ref_gradients,
            replay_dtype=None if problem is None else "float64",
            loss_floor=loss_floor,
            out=folder / "report",
            quiet=True,
        )
        for table in (report.references, report.assumptions):
            table["ref"] = table["ref"].str.replace(f"{folder}/", "")
        return report


def noisy_quadratic(
    eigenvalues: Sequence[float], seed: int, count: int = 20, noise: float = 1.0, away: float = 3.0
) -> tuple[Quadratic, list[Record]]:
    quadratic = Quadratic.with_spectrum(eigenvalues, seed=seed % 1000)
    rng = np.random.default_rng(seed)
    samples = quadratic.samples(count, rng, noise)
    return quadratic, descend(quadratic, away * rng.normal(size=quadratic.size), samples, [0.1] * count)


def noisy_network(count: int = 30) -> tuple[TanhNetwork, list[Record]]:
    network = TanhNetwork(features=3, hidden=4)
    rng = np.random.default_rng(8)
    samples = [network.sample(5, rng) for _ in range(count)]
    return network, descend(network, rng.normal(size=network.size), samples, [0.05] * count)


# Secant quantities


@few
@given(eigenvalues=spectra, seed=seeds, rate=st.floats(0.01, 0.3))
def test_the_last_step_of_plain_sgd_points_at_the_last_iterate(
    eigenvalues: list[float], seed: int, rate: float
) -> None:
    quadratic = Quadratic.with_spectrum(eigenvalues, seed=1)
    rng = np.random.default_rng(seed)
    records = descend(quadratic, rng.normal(size=quadratic.size), quadratic.samples(10, rng), [rate] * 10)
    last = towards(analyzed(records).references, "final").iloc[-2]
    assert last["cos"] == pytest.approx(1, rel=1e-9)
    assert last["cos_floor"] == pytest.approx(1, rel=1e-9)
    assert last["rsi"] == pytest.approx(1 / rate, rel=1e-9)
    assert last["eb"] == pytest.approx(1 / rate, rel=1e-9)
    assert last["lo_lr"] == pytest.approx(rate, rel=1e-9)


@few
@given(eigenvalues=spectra, seed=seeds)
def test_towards_the_minimum_of_a_quadratic_rsi_and_eb_lie_in_the_spectrum(eigenvalues: list[float], seed: int) -> None:
    quadratic, records = noisy_quadratic(eigenvalues, seed, noise=0.0)
    rows = towards(
        analyzed(records, quadratic, refs=[], point=np.zeros(quadratic.size)).references, "point.safetensors"
    )
    low, high = min(eigenvalues), max(eigenvalues)
    for name in ("rsi", "eb"):
        values = col(rows, name)[:-1]
        assert (values >= low * (1 - 1e-9)).all() and (values <= high * (1 + 1e-9)).all()
    assert (col(rows, "cos")[:-1] > 0).all()


@pytest.mark.parametrize("rates", [[0.1] * 80, cosine_rates(80, 0.1)], ids=["constant", "cosine"])
def test_pure_noise_sits_on_the_floor_and_has_no_cosine_without_its_own_step(rates: list[float]) -> None:
    size = 3000
    rows = towards(analyzed(pure_noise(rates, size, seed=4)).references, "final")[:-1]
    floor = col(rows, "cos_floor")
    tail = np.cumsum(np.square(rates)[::-1])[::-1]
    np.testing.assert_allclose(floor, rates / np.sqrt(tail), rtol=1e-9)

    # cos_t = floor + sqrt(1 - floor^2) c_t, the c_t uncorrelated with variance 1 / size; the last step has none
    excess = ((col(rows, "cos") - floor) / np.sqrt(1 - np.minimum(floor, 1) ** 2 + 1e-300))[:-1]
    skipped = col(rows, "cos_skip")[:-1]
    for values in (excess, skipped):
        assert np.abs(values).max() < 5 / math.sqrt(size)
        assert abs(values.mean()) < 3 / math.sqrt(size * len(values))
    assert math.isnan(col(rows, "cos_skip")[-1])


def test_very_near_the_reference_float32_runs_are_still_right() -> None:
    """Relative distance 1e-6: a few units in the last place of every element."""
    rng = np.random.default_rng(6)
    star = rng.normal(size=5000).astype(np.float32)
    records = []
    for step in range(5):
        x = (star + 1e-6 * np.abs(star) * rng.normal(size=star.size)).astype(np.float32)
        g = ((x - star) * 1e3 + 1e-3 * rng.normal(size=star.size)).astype(np.float32)
        records.append(Record(step, x, g, lr=0.1))
    report = analyzed(records, refs=["final"], point=star, dtype=np.float32)
    points = {"point.safetensors": Reference(star), "final": Reference(records[-1].x, step=4)}
    expected = dense(records, points, c=BOUND)
    for spec, columns in expected.references.items():
        for name in ("ref_dist", "grad_dot_ref", "rsi", "eb", "cos"):
            assert_close(towards(report.references, spec), name, columns[name], relative=1e-5)
    for name in ("step_norm", "update_corr", "init_dist"):
        assert_close(report.steps, name, expected.steps[name], relative=1e-5)


# Convexity


def assert_convex(table: pd.DataFrame) -> None:
    gap, resolution = col(table, "inst_gap"), col(table, "gap_resolution")
    defined = ~np.isnan(gap)
    assert defined.any()
    assert (gap[defined] <= resolution[defined]).all()
    for name in ("avg_gap", "exp_gap"):
        assert (col(table, name)[defined] <= resolution[defined].max()).all()
    den, ratio = col(table, "convexity_den"), col(table, "convexity_ratio")
    uphill = (den > 0) & ~np.isnan(ratio)
    assert (ratio[uphill] >= 1 - 1e-9).all()


@few
@given(eigenvalues=spectra, seed=seeds)
def test_convex_quadratics_have_no_positive_gap(eigenvalues: list[float], seed: int) -> None:
    quadratic, records = noisy_quadratic(eigenvalues, seed)
    report = analyzed(records, quadratic, refs=["final", "init"])
    assert_convex(report.steps)
    for spec in ("final", "init"):
        assert_convex(towards(report.references, spec))


@pytest.mark.parametrize("full_batch", [True, False])
def test_logistic_regression_has_no_positive_gap(full_batch: bool) -> None:
    problem, rng = Logistic(features=6), np.random.default_rng(3)
    samples = [problem.sample(40, rng) for _ in range(50)]
    records = descend(problem, np.zeros(6), [samples[0]] * 50 if full_batch else samples, [0.5] * 50)
    report = analyzed(records, problem, refs=["final", "init"], batch_once=full_batch)
    assert_convex(report.steps)
    for spec in ("final", "init"):
        assert_convex(towards(report.references, spec))
    ratio = col(towards(report.references, "final"), "convexity_ratio")
    assert full_batch <= bool((ratio[:-1] >= 1).all())


@few
@given(eigenvalues=spectra, seed=seeds)
def test_on_a_quadratic_the_gap_is_half_the_curvature_between_the_points(eigenvalues: list[float], seed: int) -> None:
    quadratic, records = noisy_quadratic(eigenvalues, seed)
    report = analyzed(records, quadratic, refs=["final", "step:3"])
    x = np.array([record.x for record in records])
    curved = {"final": x - x[-1], "step:3": x - x[3]}
    for spec, e in curved.items():
        rows = towards(report.references, spec)
        expected = -0.5 * np.einsum("ti,ij,tj->t", e, quadratic.hessian, e)
        error = np.abs(col(rows, "inst_gap") - expected)[:-1]
        assert (error <= np.maximum(1e-9 * np.abs(expected)[:-1], col(rows, "gap_resolution")[:-1])).all()
    d = np.diff(x, axis=0)
    expected = -0.5 * np.einsum("ti,ij,tj->t", d, quadratic.hessian, d)[:-1]
    error = np.abs(col(report.steps, "inst_gap")[1:-1] - expected)
    assert (error <= np.maximum(1e-9 * np.abs(expected), col(report.steps, "gap_resolution")[1:-1])).all()


@pytest.mark.parametrize("steps", [range(31), range(0, 31, 3), [0, 1, 5, 6, 10, 11, 20, 21, 30]])
def test_loss_changes_less_update_correlations_are_the_gaps(steps: Sequence[int]) -> None:
    network, records = noisy_network()
    table = analyzed(keep(records, steps), network).steps
    gap = col(table, "inst_gap")
    has_gap = ~np.isnan(gap)
    weight = chord_weights(table, gap, last=int(table["step"].iloc[-1]))
    left = (col(table, "loss_change_sum") - col(table, "update_corr_sum"))[has_gap]
    right = np.cumsum((gap * weight)[has_gap])
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12 * np.abs(left).max())


# Smoothness


@few
@given(eigenvalues=spectra, seed=seeds)
def test_on_a_quadratic_smoothness_lies_in_the_spectrum(eigenvalues: list[float], seed: int) -> None:
    quadratic, records = noisy_quadratic(eigenvalues, seed)
    report = analyzed(records, quadratic, refs=["final", "init"], ref_gradients=True)
    low, high = min(eigenvalues) * (1 - 1e-7), max(eigenvalues) * (1 + 1e-7)
    for table in (report.steps, towards(report.references, "final"), towards(report.references, "init")):
        for name in ("inst_smooth", "max_smooth", "avg_smooth", "exp_smooth"):
            values = col(table, name)
            values = values[~np.isnan(values)]
            assert len(values) and (values >= low).all() and (values <= high).all()
    for name in ("smoothness_ratio", "directional_smoothness"):
        values = col(report.steps, name)
        values = values[~np.isnan(values)]
        assert len(values) and (values >= low).all() and (values <= high).all()


# Symmetries


def assert_scaled(table: str, one: pd.DataFrame, other: pd.DataFrame, factor: float) -> None:
    """Every column of the other is `factor` to the power of the loss that its declaration gives times that of the
    one."""
    assert list(one) == list(other)
    for name, each in quantities(table).items():
        if each.power is not None and name in one:
            assert_close(other, name, col(one, name) * factor**each.power)


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("factor", [4.0, 1e-3])
def test_scaling_the_loss_scales_the_right_columns_and_only_those(factor: float, replay: bool) -> None:
    quadratic, records = noisy_quadratic([0.1, 0.5, 2.0, 4.0], seed=5)
    scaled = [
        Record(r.step, r.x, None if r.g is None else factor * np.asarray(r.g), r.lr, r.tau, r.z, None) for r in records
    ]
    for record, before in zip(scaled, records, strict=True):
        record.loss = None if before.loss is None else factor * before.loss
    bigger = Quadratic(quadratic.hessian, scale=factor)
    specs = ["final", "init", "step:3", "mean:3"]
    one, other = (
        analyzed(rows, problem if replay else None, refs=specs, ref_gradients=replay)
        for rows, problem in ((records, quadratic), (scaled, bigger))
    )
    assert_scaled("steps", one.steps, other.steps, factor)
    for spec in specs:
        rows = [towards(report.references, spec) for report in (one, other)]
        assert_scaled("references", rows[0], rows[1], factor)


SAME = ["final", "init", "mean:4"]


def assert_equal_reports(one: Any, other: Any) -> None:
    assert_scaled("steps", one.steps, other.steps, 1.0)
    for spec in SAME:
        rows = [towards(report.references, spec) for report in (one, other)]
        assert_scaled("references", rows[0], rows[1], 1.0)


FIVE = [0.1, 0.5, 1.0, 2.0, 4.0]


@cache
def in_one_tensor() -> Any:
    quadratic, records = noisy_quadratic(FIVE, seed=9)
    return analyzed(records, quadratic, SAME)


@few
@given(pieces=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_splitting_a_tensor_changes_nothing(pieces: list[int]) -> None:
    quadratic, records = noisy_quadratic(FIVE, seed=9)
    layout: Layout = {}
    left = 5
    for index, piece in enumerate([*pieces, 5]):
        layout[f"part.{index}"] = (min(piece, left),)
        left -= min(piece, left)
    assert_equal_reports(in_one_tensor(), analyzed(records, quadratic, SAME, layout))


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("replay", [True, False])
def test_the_order_of_tensors_in_the_files_changes_nothing(replay: bool, spaced: bool) -> None:
    network, records = noisy_network(15)
    problem = network if replay else None
    plain = analyzed(records, problem, SAME, network.layout)
    mixed = analyzed(records, problem, SAME, network.layout, reverse_odd=True, spaced=spaced)
    pd.testing.assert_frame_equal(plain.steps, mixed.steps)
    pd.testing.assert_frame_equal(plain.references, mixed.references)


# Thinning


def chord_weights(table: pd.DataFrame, values: np.ndarray, last: int) -> NDArray[np.float64]:
    """On own samples, of which the last iterate has none."""
    stride = col(table, "stride")
    middles = col(table, "step") - stride / 2
    return np.array(Nearest(middles.tolist(), [i + 0.5 for i in range(last - 1)], np.nanmin(stride))(values))


def standard_error_of_mean(values: np.ndarray, weights: np.ndarray) -> float:
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.sum((weights * (values - mean)) ** 2)) / weights.sum())


def logarithmic(last: int, count: int) -> list[int]:
    return sorted({0, last, *np.unique(np.geomspace(1, last, count).astype(int)).tolist()})


def test_a_logarithmic_thinning_estimates_the_whole_run_towards_a_reference() -> None:
    count = 600
    quadratic, records = noisy_quadratic([0.05, 0.1, 0.3, 1.0, 2.0], seed=21, count=count)
    thin = keep(records, logarithmic(count, 150))
    assert len(thin) < 110
    whole, part = (towards(analyzed(rows, quadratic).references, "final")[:-1] for rows in (records, thin))

    # a ratio of sums: the spread of num - ratio * den, term by term
    weight = col(part, "weight")
    ratio = col(whole, "convexity_ratio")[-1]
    den = col(part, "loss") - col(part, "loss_ref")
    residual = col(part, "grad_dot_ref") - ratio * den
    error = np.sqrt(np.sum((weight * residual) ** 2)) / np.sum(weight * den)
    assert col(part, "convexity_ratio")[-1] == pytest.approx(ratio, abs=3 * error)
    assert error < 0.2 * ratio

    cosines, everywhere = col(part, "cos"), col(whole, "cos")
    error = standard_error_of_mean(cosines, weight)
    assert np.average(cosines, weights=weight) == pytest.approx(everywhere.mean(), abs=3 * error)
    assert error < 0.1


def test_pairs_estimate_the_whole_run_between_iterates() -> None:
    count = 600
    quadratic, records = noisy_quadratic([0.05, 0.1, 0.3, 1.0, 2.0], seed=4, count=count, away=0.3)
    thin = keep(records, [step for k in range(0, count, 8) for step in (k, k + 1)] + [count])
    whole, part = (analyzed(rows, quadratic).steps.dropna(subset="inst_gap") for rows in (records, thin))
    gap, half_square = col(part, "inst_gap"), col(part, "step_norm") ** 2 / 2
    weight = chord_weights(part, gap, last=count)

    error = standard_error_of_mean(gap, weight)
    assert col(part, "avg_gap")[-1] == pytest.approx(col(whole, "avg_gap")[-1], abs=3 * error)
    assert error < 0.2 * abs(col(whole, "avg_gap")[-1])

    ratio = col(whole, "smoothness_ratio")[-1]
    error = np.sqrt(np.sum((weight * (gap + ratio * half_square)) ** 2)) / np.sum(weight * half_square)
    assert col(part, "smoothness_ratio")[-1] == pytest.approx(ratio, abs=3 * error)
    assert error < 0.2 * ratio

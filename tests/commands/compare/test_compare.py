"""trajcheck.compare against a dense reference, laws, known solutions, bad input and edges."""

from __future__ import annotations

import itertools
import json
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense import Columns, Record, Reference, dense, flat
from dense_compare import Matched, along_line, compared
from frames import col, steps_of
from handwritten import wide_run, write_objective, write_run
from networks import TanhNetwork
from plain_run_files import Outcome, write_plain_step
from quadratics import Problem, Quadratic, descend, keep
from run_files import amend, write_probe
from sample_cases import DATA

import trajcheck
from trajcheck.commands.compare.command import estimate_comparison, run_comparison
from trajcheck.commands.compare.options import ComparisonOptions
from trajcheck.errors import NotFiniteError, OutputError, RunError, UsageError
from trajcheck.metrics.convexity import RESOLUTION_FACTOR
from trajcheck.objective.objective import Objective
from trajcheck.permutations.weight_matching import Relabelling
from trajcheck.runs.divergence import load_trajectory
from trajcheck.scalars.pairs import Pair, nearest_losses
from trajcheck.stream.pair_pass import gather_pairs

Cli = Callable[..., Outcome]

NETWORK = TanhNetwork(features=3, hidden=4)
SIDE = ("ref_dist", "rsi", "eb", "cos", "inst_gap", "gap_resolution")
SIDE_SUMS = ("convexity_num", "convexity_den", "convexity_ratio")


def network_records(seed: int, count: int = 12, rate: float = 0.1, init: int | None = None) -> list[Record]:
    """Plain SGD on batches of 4; `init` is the seed of the first iterate."""
    rng = np.random.default_rng(seed)
    samples = [NETWORK.sample(4, rng) for _ in range(count)]
    start = np.random.default_rng(seed if init is None else init).normal(size=NETWORK.size)
    return descend(NETWORK, start, samples, [rate] * count)


def written(folder: Path, name: str, records: Sequence[Record], problem: Problem | None = NETWORK, **how: Any) -> Path:
    layout = NETWORK.layout if problem is NETWORK else {"x": (flat(records[0].x).size,)}
    return write_run(folder / name, records, how.pop("layout", layout), **how)


def network_objective(folder: Path, name: str = "objective") -> str:
    path = folder / "objective.py"
    write_objective(path, NETWORK, NETWORK.layout)
    path.write_text(path.read_text() + DATA)
    return f"{path}:{name}"


def by_step(a: Sequence[Record], b: Sequence[Record]) -> list[Matched]:
    return [(i, j, 0.0) for i, x in enumerate(a) for j, y in enumerate(b) if x.step == y.step]


def assert_columns(frame: pd.DataFrame, expected: Columns, relative: float = 1e-9) -> None:
    """Every expected column to `relative`, or 1e-12 of its largest value; empty in the same rows."""
    for name, values in expected.items():
        actual = col(frame, name)
        assert len(actual) == len(values), name
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(values), err_msg=name)
        largest = np.nanmax(np.abs(values), initial=0.0)
        np.testing.assert_allclose(actual, values, rtol=relative, atol=1e-12 * largest, err_msg=name)


def assert_accounted(found: trajcheck.Comparison) -> None:
    """Every empty cell has a reason in undefined.csv, and no filled one has; columns left out have reasons for all."""
    entries = found.undefined[found.undefined["table"] == "compare"]
    assert (entries["reason"].str.len() > 0).all()
    for name in {*entries["column"], *found.pairs.columns}:
        for run_b, rows in found.pairs.groupby("run_b"):
            of = entries[(entries["column"] == name) & (entries["ref"] == run_b)]
            explained = [step for ranges in of["steps"] for step in sorted(steps_of(ranges))]
            empty = rows["step_a"][rows[name].isna()] if name in rows else rows["step_a"]
            assert sorted(explained) == sorted(empty), name


def side(records: Sequence[Record], star: Any, problem: Problem | None) -> Columns:
    """What references.csv of one run holds towards a point from elsewhere."""
    f, grad = (problem.f, problem.grad) if problem else (None, None)
    return dense(records, {"x": Reference(star)}, f, grad, c=RESOLUTION_FACTOR).references["x"]


def both_sides(a: Sequence[Record], b: Sequence[Record], pairs: Sequence[Matched], problem: Problem | None) -> Columns:
    found = {}
    for name, records, star, places in (
        ("a", a, b[-1].x, [i for i, _, _ in pairs]),
        ("b", b, a[-1].x, [j if not s else None for _, j, s in pairs]),
    ):
        columns = side(records, star, problem)
        for each in (*SIDE, *SIDE_SUMS):
            values = columns[each]
            found[f"{each}_{name}"] = np.array([np.nan if place is None else values[place] for place in places])
    return found


# -- against the dense reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("replayed", [True, False])
def test_every_column_as_the_dense_reference_has_it(tmp_path: Path, replayed: bool) -> None:
    a, b = network_records(1), network_records(2)
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b, reverse_odd=True)
    options: dict[str, Any] = {"objective": network_objective(tmp_path), "line": 4} if replayed else {}
    found = trajcheck.compare(run_a, run_b, out=tmp_path / "report", **options)
    pairs = by_step(a, b)
    assert_columns(found.pairs, compared(a, b, pairs))
    expected = both_sides(a, b, pairs, NETWORK if replayed else None)
    resolutions = {name: expected.pop(name) for name in list(expected) if "resolution" in name}
    assert_columns(found.pairs, expected, 1e-8)
    if replayed:
        assert_columns(found.pairs, resolutions)
        assert_columns(found.pairs, along_line(a, b, pairs, NETWORK.f, 4))
        assert (found.pairs["barrier"].dropna() >= 0).all()
        largest = found.pairs[[f"line_{s:.6g}" for s in np.arange(6) / 5]].max(axis=1)
        np.testing.assert_allclose(found.pairs["barrier_resolution"], 2 * 4 * 2.0**-52 * largest)
    else:
        assert not any(str(name).startswith(("line_", "barrier", "inst_gap")) for name in found.pairs)
    np.testing.assert_allclose(col(found.pairs, "loss_a")[:-1], [float(record.loss or 0) for record in a[:-1]])
    assert_accounted(found)
    assert not found.incomplete
    saved = pd.read_csv(tmp_path / "report" / "compare.csv")
    pd.testing.assert_frame_equal(saved, found.pairs, check_dtype=False)


def test_the_columns_stand_in_the_order_of_the_contract(tmp_path: Path) -> None:
    runs = [written(tmp_path, name, network_records(seed)) for name, seed in (("a", 1), ("b", 2))]
    found = trajcheck.compare(
        *runs, align="time", objective=network_objective(tmp_path), line=1, out=tmp_path / "report"
    )
    sides = [f"{name}_{run}" for run in "ab" for name in (*SIDE, *SIDE_SUMS)]
    assert list(found.pairs) == [
        *("run_a", "run_b", "step_a", "step_b", "tau_a", "tau_b", "tau_gap", "interpolated", "loss_a", "loss_b"),
        *("dist", "init_dist_a", "init_dist_b", "relative_dist", "displacement_cos", "update_cos"),
        *sides,
        *("barrier", "barrier_resolution", "line_0", "line_0.5", "line_1"),
    ]


def test_other_strides_and_lengths(tmp_path: Path) -> None:
    """A keeps every step up to 12; B every third up to 17, where it stopped."""
    a = network_records(1)
    b = keep(network_records(2, count=17), [0, 3, 6, 9, 12, 15, 17])
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b)
    found = trajcheck.compare(run_a, run_b, objective=network_objective(tmp_path), line=2, out=tmp_path / "report")
    pairs = by_step(a, b)
    assert [a[i].step for i, _, _ in pairs] == [0, 3, 6, 9, 12]
    assert_columns(found.pairs, compared(a, b, pairs))
    assert_columns(found.pairs, {k: v for k, v in both_sides(a, b, pairs, NETWORK).items() if "resol" not in k}, 1e-8)
    unmatched = found.summary["unmatched"][str(run_b)]
    assert unmatched["a"]["steps"] == "1-2, 4-5, 7-8, 10-11"
    assert unmatched["b"]["steps"] == "15-17" and unmatched["b"]["records"] == 2
    warnings = "\n".join(found.summary["warnings"])
    assert "8 of 13 records" in warnings and f"{run_b}: update_cos is over chords of 3 steps" in warnings
    assert_accounted(found)


def test_probe_batches_give_means_and_errors(tmp_path: Path) -> None:
    a = network_records(1, count=4)
    b = permuted(a, np.array([2, 0, 3, 1]))  # the same network at both ends, and a worse one between them
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b)
    rng = np.random.default_rng(7)
    batches = [NETWORK.sample(4, rng) for _ in range(5)]
    write_probe(run_a, batches)
    found = trajcheck.compare(
        run_a, run_b, objective=network_objective(tmp_path), line=3, sample="probe", out=tmp_path / "report"
    )
    assert_columns(found.pairs, along_line(a, b, by_step(a, b), NETWORK.f, 3, batches))
    assert (found.pairs["barrier"] > 0.001).all() and (found.pairs["barrier_se"] > 0).all()
    assert found.summary["headline"][str(run_b)]["max_barrier_se"] in list(found.pairs["barrier_se"])
    assert found.summary["line"]["evaluations"] == 5 * 5 * 5


def test_one_probe_batch_has_no_error(tmp_path: Path) -> None:
    runs = [written(tmp_path, name, network_records(seed, count=2)) for name, seed in (("a", 1), ("b", 2))]
    write_probe(runs[0], [NETWORK.sample(4, np.random.default_rng(7))])
    found = trajcheck.compare(*runs, objective=network_objective(tmp_path), sample="probe", out=tmp_path / "report")
    assert "barrier" in found.pairs and "barrier_se" not in found.pairs
    assert_accounted(found)


def test_the_full_data_set(tmp_path: Path) -> None:
    a, b = network_records(1, count=3), network_records(2, count=3)
    runs = written(tmp_path, "a", a), written(tmp_path, "b", b)
    found = trajcheck.compare(
        *runs, objective=network_objective(tmp_path, "with_data"), line=1, sample="full", out=tmp_path / "report"
    )
    rng = torch.Generator().manual_seed(5)
    inputs = torch.cat([torch.randn(rows, 3, generator=rng, dtype=torch.float64) for rows in (4, 4, 3)]).numpy()
    whole = (inputs, np.sin(2 * inputs[:, 0]))
    assert_columns(found.pairs, along_line(a, b, by_step(a, b), NETWORK.f, 1, [whole]))


def test_layers_add_up(tmp_path: Path) -> None:
    a, b = network_records(1), network_records(2)
    runs = written(tmp_path, "a", a), written(tmp_path, "b", b)
    found = trajcheck.compare(*runs, layers=True, out=tmp_path / "report")
    assert found.layers is not None
    begin = 0
    for name, shape in NETWORK.layout.items():
        size = int(np.prod(shape))
        part = slice(begin, begin + size)
        begin += size
        rows = found.layers[found.layers["tensor"] == name].reset_index(drop=True)
        if not size:
            assert rows.empty
            continue
        cut_a, cut_b = ([Record(r.step, flat(r.x)[part], r.g, z=r.z) for r in run] for run in (a, b))
        expected = compared(cut_a, cut_b, by_step(a, b))
        columns = ("dist", "init_dist_a", "init_dist_b", "displacement_cos", "update_cos")
        assert_columns(rows, {column: expected[column] for column in columns})
        assert (rows["numel"] == size).all()
    squares = found.layers.assign(square=found.layers["dist"] ** 2).groupby("step_a")["square"].sum()
    np.testing.assert_allclose(squares**0.5, found.pairs["dist"])
    assert (tmp_path / "report" / "layers.csv").exists()


def test_blocks_and_chunks_change_nothing(tmp_path: Path) -> None:
    a, b = network_records(1), network_records(2, count=17)
    run_a, run_b = (load_trajectory(written(tmp_path, n, each), False) for n, each in (("a", a), ("b", b)))
    pairs = [Pair(i, j, s) for i, j, s in ((0, 1, 0.3), (2, 1, 0.3), (5, 4, 0), (6, 9, 0.5))]
    chords = [False, True, True, True]
    expected = compared(a, b, [(pair.place_a, pair.place_b, pair.fraction) for pair in pairs])
    for chunk, block in ((128, 1 << 17), (1, 1), (2, 5), (3, 7)):
        scalars = list(gather_pairs(run_a, run_b, pairs, chords, chunk=chunk, block=block))
        np.testing.assert_allclose([each.dist_sq**0.5 for each in scalars], expected["dist"], rtol=1e-12)
        found = [(each.step_dot or 0) / ((each.step_sq_a or 0) * (each.step_sq_b or 0)) ** 0.5 for each in scalars[1:]]
        np.testing.assert_allclose(found, expected["update_cos"][1:], rtol=1e-12)


def test_memory_depends_neither_on_the_model_nor_on_the_steps(tmp_path: Path) -> None:
    peaks = []
    for name, steps, numel in (("small", 6, 300_000), ("wide", 6, 2_400_000), ("long", 40, 300_000)):
        runs = [load_trajectory(wide_run(tmp_path / f"{name}-{each}", steps, numel), False) for each in "ab"]
        pairs = [Pair(place, place, 0.5 * (place % 2)) for place in range(steps - 1)]
        for _ in range(2):  # imports and caches are paid for the first time
            tracemalloc.start()
            list(gather_pairs(runs[0], runs[1], pairs, [place > 0 for place in range(steps - 1)]))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        peaks.append(peak)
    assert max(peaks) < 1.15 * min(peaks), peaks
    assert max(peaks) < 25_000_000  # some blocks of one megabyte


# -- alignment --------------------------------------------------------------------------------------------------------


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


# -- laws -------------------------------------------------------------------------------------------------------------


def test_a_run_and_itself(tmp_path: Path) -> None:
    run = written(tmp_path, "a", network_records(1))
    for how in ("step", "time", "loss"):
        found = trajcheck.compare(
            run, run, align=how, objective=network_objective(tmp_path), out=tmp_path / f"report-{how}"
        )
        pairs = found.pairs
        assert pairs["step_a"].tolist() == pairs["step_b"].tolist() == list(range(12 if how == "loss" else 13))
        assert (pairs["dist"] == 0).all() and (pairs["relative_dist"].dropna() == 0).all()
        np.testing.assert_allclose(pairs["displacement_cos"].dropna(), 1, rtol=1e-14)
        np.testing.assert_allclose(pairs["update_cos"].dropna(), 1, rtol=1e-14)
        assert (pairs["barrier"].dropna() <= pairs["barrier_resolution"].dropna()).all()
        for name in (*SIDE, *SIDE_SUMS):
            np.testing.assert_array_equal(pairs[f"{name}_a"], pairs[f"{name}_b"])
        assert found.summary["inits"][str(run)]["one"] is True


def test_swapping_the_runs_swaps_the_columns(tmp_path: Path) -> None:
    a, b = network_records(1), keep(network_records(2, count=15, rate=0.05), [0, 2, 4, 5, 6, 8, 15])
    runs = [written(tmp_path, name, each) for name, each in (("a", a), ("b", b))]
    objective = network_objective(tmp_path)
    for how in ("step", "time"):
        one, other = (
            trajcheck.compare(*order, align=how, objective=objective, line=0, out=tmp_path / how / order[0].name).pairs
            for order in (runs, runs[::-1])
        )
        swapped = {"a": "b", "b": "a"}
        names = {n: f"{n[:-1]}{swapped[n[-1]]}" for n in map(str, other) if n.endswith(("_a", "_b"))}
        pd.testing.assert_frame_equal(one, other.rename(columns=names)[list(one)], rtol=1e-14)
        assert not any(str(name).startswith("line") for name in one)


def test_scaling_the_loss_scales_what_is_of_its_unit(tmp_path: Path) -> None:
    quadratic = Quadratic.with_spectrum([0.3, 1.0, -0.5], seed=1)
    frames = []
    for scale in (1.0, 8.0):
        scaled = Quadratic(quadratic.hessian, scale)
        runs = []
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            samples = quadratic.samples(8, rng)
            records = descend(scaled, rng.normal(size=3), samples, [0.1 / scale] * 8)
            runs.append(written(tmp_path / f"{scale}", f"{seed}", records, None))
        objective = write_objective(tmp_path / f"{scale}.py", scaled, {"x": (3,)})
        frames.append(trajcheck.compare(*runs, objective=objective, out=tmp_path / f"report-{scale}").pairs)
    of_loss = ("loss", "rsi", "eb", "inst_gap", "gap_resolution", "convexity_num", "convexity_den", "barrier", "line")
    for name in frames[0].columns.difference(["run_a", "run_b"]):
        factor = 8 if name.startswith(of_loss) else 1 / 8 if name.startswith("tau") else 1
        np.testing.assert_allclose(frames[1][name], factor * frames[0][name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_cutting_tensors_otherwise_changes_nothing(tmp_path: Path) -> None:
    a, b = network_records(1), network_records(2)
    one, other = (
        trajcheck.compare(*(written(tmp_path / name, n, r, layout=layout) for n, r in (("a", a), ("b", b))),
                          out=tmp_path / f"report-{name}").pairs.drop(columns=["run_a", "run_b"])
        for name, layout in (("split", NETWORK.layout), ("whole", {"x": (NETWORK.size,)}))
    )  # fmt: skip
    pd.testing.assert_frame_equal(one, other, rtol=1e-12)


def test_quadratics_have_the_barrier_that_their_hessian_gives(tmp_path: Path) -> None:
    """On a quadratic h(s) = -s(1-s)/2 <e, H e>: no barrier where H > 0, |<e, H e>|/8 in the middle where H < 0."""
    rng = np.random.default_rng(5)
    for name, spectrum in (("convex", [0.2, 1.0, 3.0]), ("concave", [-0.2, -0.1, -0.4])):
        quadratic = Quadratic.with_spectrum(spectrum, seed=2)
        records = [descend(quadratic, rng.normal(size=3), quadratic.samples(5, rng), [0.1] * 5) for _ in "ab"]
        runs = [written(tmp_path / name, run, each, None) for run, each in zip("ab", records, strict=True)]
        objective = write_objective(tmp_path / f"{name}.py", quadratic, {"x": (3,)})
        found = trajcheck.compare(*runs, objective=objective, line=3, out=tmp_path / f"report-{name}")
        errors = [flat(x.x).astype(float) - flat(y.x).astype(float) for x, y in zip(*records, strict=True)]
        curved = np.array([e @ quadratic.hessian @ e for e in errors])[:-1]
        expected = np.zeros(5) if name == "convex" else -curved / 8
        np.testing.assert_allclose(found.pairs["barrier"][:-1], expected, rtol=1e-9, atol=1e-14)
        middle = found.pairs["line_0.5"] - (found.pairs["line_0"] + found.pairs["line_1"]) / 2
        np.testing.assert_allclose(middle[:-1], -curved / 8, rtol=1e-9, atol=1e-13)
        if name == "convex":
            gaps = found.pairs[["inst_gap_a", "inst_gap_b"]].dropna()
            assert (gaps <= 0).all(axis=None)
            assert (
                found.pairs["convexity_ratio_a"].dropna() * np.sign(found.pairs["convexity_den_a"])[:5] > -1e9
            ).all()


def test_small_distances_keep_their_digits(tmp_path: Path) -> None:
    """|x|^2 - 2 <x, y> + |y|^2 would lose all of them."""
    x = np.full(1000, 1e4)
    runs = [written(tmp_path, n, [Record(0, x + d)], None) for n, d in (("a", 0.0), ("b", np.resize([1e-9, 0], 1000)))]
    found = trajcheck.compare(*runs, out=tmp_path / "report")
    difference = np.resize([1e4 + 1e-9, 1e4], 1000) - x
    np.testing.assert_allclose(found.pairs["dist"], np.linalg.norm(difference), rtol=1e-12)


def test_several_others_are_each_as_if_alone(tmp_path: Path) -> None:
    runs = [written(tmp_path, str(seed), network_records(seed, count=10 + seed)) for seed in (1, 2, 3)]
    objective = network_objective(tmp_path)
    together = trajcheck.compare(*runs, objective=objective, line=1, out=tmp_path / "together")
    for other in runs[1:]:
        alone = trajcheck.compare(runs[0], other, objective=objective, line=1, out=tmp_path / f"alone-{other.name}")
        rows = together.pairs[together.pairs["run_b"] == str(other)].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.pairs)
    assert_accounted(together)
    # a run that is given twice is compared once
    again = trajcheck.compare(*runs, runs[1], out=tmp_path / "again").pairs
    assert len(again) == len(together.pairs)


def test_runs_of_one_hash_are_not_taken_for_one_another(tmp_path: Path) -> None:
    """Without run.json a run goes by its first step's hash, which runs of one init and batch share."""
    first = network_records(1, count=1)[0]
    runs = []
    for seed in (1, 2, 3):
        records = [first, *network_records(seed, count=5, init=1)[1:]]
        runs.append(written(tmp_path, str(seed), records, optimizer=None))
    assert len({load_trajectory(run, False).id for run in runs}) == 1
    objective = network_objective(tmp_path)
    together = trajcheck.compare(*runs, objective=objective, line=0, out=tmp_path / "together").pairs
    alone = trajcheck.compare(runs[0], runs[2], objective=objective, line=0, out=tmp_path / "alone").pairs
    rows = together[together["run_b"] == str(runs[2])].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone)
    assert together["inst_gap_a"].nunique() > 8


def test_the_programs_that_the_runs_brought_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--objective run: each run is replayed by its own program, the lines by that of the first."""

    def loss_fn(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(batch[0]), batch[1])

    for name, rate, count in (("a", 0.1, 4), ("b", 0.05, 8)):
        stream = torch.Generator().manual_seed(0)
        model = torch.nn.Linear(3, 1)
        with torch.no_grad():
            model.weight.fill_(0.5)
            model.bias.fill_(0.25)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        with trajcheck.Recorder(tmp_path / name, model, optimizer, every=1, objective=loss_fn) as recorder:
            for _ in range(count):
                batch = torch.randn(8, 3, generator=stream), torch.randn(8, 1, generator=stream)
                loss = loss_fn(model, batch)
                loss.backward()
                recorder.observe(batch, loss)
                optimizer.step()
                optimizer.zero_grad()
    found = trajcheck.compare(tmp_path / "a", tmp_path / "b", align="time", objective="run", out=tmp_path / "report")
    assert found.pairs["step_b"].tolist() == [0, 2, 4, 6, 8]
    assert found.summary["inits"][str(tmp_path / "b")]["one"] is True
    line = found.pairs[[f"line_{s:.6g}" for s in np.arange(11) / 10]].to_numpy()[:-1]
    # linear regression: a parabola along any line
    np.testing.assert_allclose(np.diff(line, n=3), 0, atol=1e-5)
    np.testing.assert_allclose(line[:, 0], found.pairs["loss_a"][:-1], rtol=1e-5)


# -- another order of the units ---------------------------------------------------------------------------------------


def permuted(records: Sequence[Record], order: np.ndarray) -> list[Record]:
    """The same network with its hidden units in another order: x and g alike."""
    h, d = NETWORK.hidden, NETWORK.features

    def reorder(point: Any) -> Any:
        if point is None:
            return None
        x = flat(point).astype(float)
        weight, bias, out, gain = x[: h * d].reshape(h, d), x[h * d : h * d + h], x[h * d + h : -1], x[-1:]
        return np.concatenate([weight[order].reshape(-1), bias[order], out[order], gain])

    return [Record(r.step, reorder(r.x), reorder(r.g), r.lr, r.tau, r.z, r.loss) for r in records]


def test_a_relabelled_run_is_compared_in_the_order_of_the_first(tmp_path: Path) -> None:
    a, b = network_records(1), network_records(2)
    order = np.array([2, 0, 3, 1])
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b)
    run_p = written(tmp_path, "p", permuted(b, order))
    named = {"body.hidden.weight", "body.hidden.bias", "out"}

    def match(one: Any, other: Any) -> Relabelling:
        assert (one.path, other.path) == (run_a, run_p)
        return Relabelling(
            to_a=lambda name, value: value[np.argsort(order)] if name in named else value,
            to_b=lambda name, value: value[order] if name in named else value,
        )

    options = ComparisonOptions(objective=network_objective(tmp_path), line=2, layers=True)
    plain = run_comparison([run_a, run_b], options, tmp_path / "plain")
    matched = run_comparison([run_a, run_p], options, tmp_path / "matched", match=match)
    for name in plain.pairs.columns.difference(["run_a", "run_b"]):
        np.testing.assert_allclose(matched.pairs[name], plain.pairs[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert plain.layers is not None and matched.layers is not None
    np.testing.assert_allclose(matched.layers["dist"], plain.layers["dist"], rtol=1e-12)
    assert matched.summary["relabelled"] == [str(run_p)]
    unmatched = run_comparison([run_a, run_p], options, tmp_path / "unmatched").pairs
    assert (abs(unmatched["dist"] - plain.pairs["dist"]) > 1e-6).all()
    assert not list((tmp_path / "matched").glob("*.safetensors"))


# -- bad input --------------------------------------------------------------------------------------------------------


def test_other_models_are_refused_with_both_sides(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", [Record(0, np.ones(9))], {"w": (2, 3), "only.a": (2,), "b": (1,)})
    other = write_run(tmp_path / "b", [Record(0, np.ones(10))], {"w": (3, 2), "b": (1,), "only.b": (3,)})
    with pytest.raises(RunError) as caught:
        trajcheck.compare(one, other, out=tmp_path / "report")
    message = str(caught.value)
    assert f"only {one} has: only.a [2]" in message and f"only {other} has: only.b [3]" in message
    assert "shapes differ: w [2, 3] and [3, 2]" in message
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("step", ["2 records of steps 0 to 2", "2 records of steps 1 to 3", "--align time"]),
        ("time", ["with tau 0 to 0.2", "with tau 0.1 to 0.3", "--interpolate"]),
        ("loss", ["without a loss", "with losses 1 to 2"]),
    ],
)
def test_nothing_to_match_says_what_either_has(tmp_path: Path, how: str, words: list[str]) -> None:
    a = [Record(t, np.ones(2), tau=t / 10) for t in (0, 2)]
    b = [Record(t, np.ones(2), tau=t / 10, loss=(t + 1) / 2) for t in (1, 3)]
    runs = [written(tmp_path, name, each, None) for name, each in (("a", a), ("b", b))]
    with pytest.raises(RunError) as caught:
        trajcheck.compare(*runs, align=how, out=tmp_path / "report")
    for word in (*words, str(runs[0]), str(runs[1])):
        assert word in str(caught.value)


def test_times_that_nobody_recorded_are_not_made_up(tmp_path: Path) -> None:
    with_tau = written(tmp_path, "a", [Record(t, np.ones(2), lr=0.1, tau=t / 10) for t in range(3)], None)
    without = written(tmp_path, "b", [Record(t, np.ones(2), lr=0.1) for t in range(3)], None)
    with pytest.raises(RunError, match=r"3 records of steps 0 to 2, without a tau\. .*--align step"):
        trajcheck.compare(with_tau, without, align="time", out=tmp_path / "report")
    found = trajcheck.compare(with_tau, without, out=tmp_path / "report")
    assert "tau_b" not in found.pairs and "no tau was recorded" in set(found.undefined["reason"])


def test_groups_that_differ_in_tau_have_no_time(tmp_path: Path) -> None:
    records = [Record(t, np.ones(2) * t) for t in range(4)]
    a, b = written(tmp_path, "a", records, None), written(tmp_path, "b", records, None)
    for t in range(4):
        amend(a, t, tau=[0.1 * t, 0.1 * t])
        amend(b, t, tau=[0.1 * t, 0.1 * t] if t < 2 else [0.1 * t, 0.2 * t])
    found = trajcheck.compare(a, b, align="time", out=tmp_path / "report")
    assert found.pairs["step_a"].tolist() == [0, 1]
    assert found.summary["unmatched"][str(b)]["b"]["steps"] == "2-3"
    stepwise = trajcheck.compare(a, b, out=tmp_path / "stepwise")
    assert stepwise.pairs["tau_b"].isna().tolist() == [False, False, True, True]
    assert "parameter groups differ in tau" in set(stepwise.undefined["reason"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"align": "epoch"}, "--align 'epoch': expected step, time, loss"),
        ({"tolerance": 0.1}, "--tolerance is of times or losses"),
        ({"align": "time", "tolerance": -1.0}, "--tolerance -1.0"),
        ({"align": "time", "tolerance": float("nan")}, "--tolerance nan"),
        ({"interpolate": True}, "--interpolate"),
        ({"line": 3}, "--line 3 needs --objective"),
        ({"line": -1}, "--line -1: expected"),
        ({"sample": "probe"}, "--sample probe needs --objective"),
        ({"sample": "previous"}, "--sample 'previous': expected own, probe, full"),
        ({"replay_dtype": "float64"}, "--replay-dtype needs"),
        ({"objective": "x.py:f", "line": 0, "sample": "full"}, "--sample full is that of the losses along the line"),
        ({"steps": "3"}, "--steps '3'"),
    ],
)
def test_options_that_make_no_sense(plain_run: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        trajcheck.compare(plain_run, plain_run, out=tmp_path / "report", **options)
    assert not (tmp_path / "report").exists()


def test_no_probe_and_no_data_set(plain_run: Path, tmp_path: Path, objective_file: Path) -> None:
    with pytest.raises(RunError, match="no probe batches were stored"):
        trajcheck.compare(
            plain_run, plain_run, objective=f"{objective_file}:good", sample="probe", out=tmp_path / "report"
        )
    with pytest.raises(trajcheck.TrajcheckError, match="--sample full needs the data set"):
        trajcheck.compare(
            plain_run, plain_run, objective=f"{objective_file}:good", sample="full", out=tmp_path / "report"
        )
    with pytest.raises(trajcheck.TrajcheckError, match="does not fit the run"):
        trajcheck.compare(plain_run, plain_run, objective=f"{objective_file}:other", out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_inf_in_the_middle(tmp_path: Path) -> None:
    records = [Record(t, np.ones(3) * t) for t in range(6)]
    records[2] = Record(2, np.array([1.0, np.inf, 0.0]))
    good, bad = written(tmp_path, "good", network(6), None), written(tmp_path, "bad", records, None)
    for runs in ((good, bad), (bad, good)):
        with pytest.raises(NotFiniteError, match=r"bad/step-000000002.*param/x holds NaN or Inf.*--skip-bad"):
            trajcheck.compare(*runs, out=tmp_path / "report")
    found = trajcheck.compare(good, bad, skip_bad=True, out=tmp_path / "report")
    assert found.pairs["step_a"].tolist() == [0, 1, 3, 4, 5]
    assert list(found.summary["left_out"]["steps"][str(bad)]) == ["2"]


def network(count: int) -> list[Record]:
    """A few records of three numbers."""
    rng = np.random.default_rng(1)
    return [Record(t, rng.normal(size=3)) for t in range(count)]


def test_reports_of_others_and_runs_are_not_overwritten(tmp_path: Path) -> None:
    a, b, c = (written(tmp_path, name, network(3), None) for name in "abc")
    trajcheck.compare(a, b, out=tmp_path / "report")
    trajcheck.compare(a, b, out=tmp_path / "report")
    for runs in ((a, c), (b, a), (a, b, c)):
        with pytest.raises(OutputError, match="holds the report of another run"):
            trajcheck.compare(*runs, out=tmp_path / "report")
    with pytest.raises(OutputError, match="another run"):
        trajcheck.analyze(a, out=tmp_path / "report")
    with pytest.raises(OutputError, match="runs are never written to"):
        trajcheck.compare(a, b, out=b / "report")


# -- edges ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("replayed", [True, False])
@pytest.mark.parametrize("how", ["step", "time"])
def test_the_dry_run_says_what_is_read_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_read: list[int], replayed: bool, how: str
) -> None:
    a, b = network_records(1), keep(network_records(2, 15, 0.15), [0, 2, 3, 4, 8, 15])
    runs = [written(tmp_path, name, each) for name, each in (("a", a), ("b", b))]
    options = ComparisonOptions(
        align=how,
        interpolate=how == "time",
        objective=network_objective(tmp_path) if replayed else None,
        line=2 if replayed else None,
    )
    cost = estimate_comparison(runs, options)
    counts = {"loss": 0, "loss_and_gradient": 0}
    loss, both = Objective.loss, Objective.loss_and_gradient
    bytes_read.clear()

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(Objective, "loss", count("loss", loss))
    monkeypatch.setattr(Objective, "loss_and_gradient", count("loss_and_gradient", both))
    found = run_comparison(runs, options, tmp_path / "report")
    assert cost.rows == len(found.pairs) > 2
    assert (counts["loss"], counts["loss_and_gradient"]) == (cost.losses, cost.gradients)
    checks = sum(bytes_read) - cost.stored_bytes - cost.replay_bytes
    # besides: are the ends of the runs finite, are the inits one
    size = 8 * NETWORK.size
    assert 0 <= checks <= 2 * 2 * size + 2 * size
    assert f"{cost.stored_bytes:,} bytes to read" in str(cost)


def test_the_dry_run_writes_nothing(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [written(tmp_path, name, network(4), None) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    outcome = cli("compare", *runs, "--dry-run")
    assert outcome.code == 0 and "rows       4" in outcome.out
    assert not (tmp_path / "reports").exists()


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("a-folder-of-a-long-name" * 3)
    a, b, c = (written(folder, name, network_records(seed)) for name, seed in (("a", 1), ("b", 2), ("c", 3)))
    monkeypatch.chdir(tmp_path)
    objective = network_objective(tmp_path)
    outcome = cli("compare", a, b, c, "--objective", objective, "--line", 2, "--layers", "--align", "time")
    assert outcome.code == 0, outcome
    assert all(len(line) <= 80 or str(tmp_path) in line for line in outcome.out.splitlines())
    rows = [line for line in outcome.out.splitlines() if line.startswith("...")]
    assert len(rows) == 2 and all("other" in row for row in rows)
    folder = tmp_path / "reports" / "compare" / "a--b--c"
    for name in ("compare.csv", "layers.csv", "undefined.csv", "summary.json"):
        assert (folder / name).exists() and f"reports/compare/a--b--c/{name}" in outcome.out
    summary = json.loads((folder / "summary.json").read_text())
    head = summary["headline"][str(b)]
    frame = pd.read_csv(folder / "compare.csv")
    of_b = frame[frame["run_b"] == str(b)]
    assert head["max_barrier"] == of_b["barrier"].max() and head["dist"] == of_b["dist"].iloc[-1]
    assert head["max_barrier_step_a"] == of_b["step_a"].to_numpy()[np.nanargmax(of_b["barrier"])]
    assert summary["options"]["align"] == "time" and summary["versions"]["torch"]
    assert cli("compare", a, b, "--quiet", "--out", tmp_path / "quiet").out == ""


def test_the_command_refuses(tmp_path: Path, cli: Cli) -> None:
    run = written(tmp_path, "a", network(3), None)
    assert cli("compare", run).code == 2
    assert cli("compare", run, run, "--interpolate").code == 2
    missing = cli("compare", run, tmp_path / "nothing")
    assert missing.code == 3 and "no such run" in missing.err

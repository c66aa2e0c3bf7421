"""Every column of a comparison as a dense reference has it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense import Record, flat
from dense_compare import along_line, compared
from frames import col
from handwritten import wide_run
from quadratics import keep
from run_files import write_probe
from two_runs import (
    NETWORK,
    SIDE,
    SIDE_SUMS,
    assert_accounted,
    assert_columns,
    both_sides,
    by_step,
    network_objective,
    network_records,
    permuted,
    written,
)

import trajcheck
from trajcheck.runs.divergence import load_trajectory
from trajcheck.scalars.pairs import Pair
from trajcheck.stream.pair_pass import gather_pairs


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
    peaks: list[int] = []
    for name, steps, numel in (("small", 6, 300_000), ("wide", 6, 1_200_000), ("long", 24, 300_000)):
        runs = [load_trajectory(wide_run(tmp_path / f"{name}-{each}", steps, numel), False) for each in "ab"]
        pairs = [Pair(place, place, 0.5 * (place % 2)) for place in range(steps - 1)]
        for _ in range(1 if peaks else 2):  # imports and caches are paid for the first time
            tracemalloc.start()
            list(gather_pairs(runs[0], runs[1], pairs, [place > 0 for place in range(steps - 1)]))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        peaks.append(peak)
    assert max(peaks) < 1.15 * min(peaks), peaks
    assert max(peaks) < 25_000_000  # some blocks of one megabyte

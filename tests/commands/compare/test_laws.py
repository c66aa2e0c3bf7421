"""Laws of a comparison: a run and itself, swapped runs, a scaled loss, tensors cut otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense import Record, flat
from handwritten import write_objective
from quadratics import Quadratic, descend, keep
from two_runs import NETWORK, SIDE, SIDE_SUMS, assert_accounted, network_objective, network_records, written

import trajcheck
from trajcheck.runs.divergence import load_trajectory


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

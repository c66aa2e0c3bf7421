"""trajcheck.analyze, every column, against tests/helpers/dense.py in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense import Columns, Record, Reference, Tables, dense, flat
from frames import REFERENCES, REFERENCES_IF_ASKED, STEPS, assert_accounted, assert_close, col, towards
from handwritten import cut, write_objective, write_run
from networks import TanhNetwork
from quadratics import Layout, Problem, Quadratic, descend, keep
from safetensors.numpy import save_file

import trajcheck
from trajcheck.metrics.resolution import BOUND

LAST = 60
FLOOR = -1000.0  # below all losses
SPACINGS = {
    "every": list(range(LAST + 1)),
    "strided": list(range(0, LAST + 1, 10)),
    "pairs": [step for k in range(0, LAST, 10) for step in (k, k + 1)] + [LAST],
    "logarithmic": [0, 1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 57, LAST],
}


@dataclass
class Case:
    problem: Problem
    layout: Layout
    records: list[Record]
    other: list[Record]  # another run, from another start


def quadratic_case(layout: Layout | None = None, clip: float = 1.0) -> Case:
    quadratic = Quadratic.with_spectrum([0.02, 0.1, 0.4, 1.0, 2.0, 4.0], seed=3)
    rng = np.random.default_rng(11)
    rates = list(np.linspace(0.2, 0.05, LAST))
    runs = [
        descend(quadratic, rng.normal(size=6), quadratic.samples(LAST, rng), rates, clip=clip) for clip in (0.5, 1.0)
    ]
    return Case(quadratic, layout or {"x": (6,)}, *runs)


def network_case() -> Case:
    network = TanhNetwork(features=3, hidden=4)
    rng = np.random.default_rng(12)
    samples = [network.sample(5, rng) for _ in range(LAST)]
    runs = [descend(network, rng.normal(size=network.size), samples, [0.05] * LAST) for _ in range(2)]
    return Case(network, network.layout, *runs)


CASES = {
    "quadratic": quadratic_case(),
    "pieces": quadratic_case({"a.weight": (2, 2), "a.bias": (), "none": (0, 3), "b": (1,)}, clip=0.5),
    "network": network_case(),
}


def references_of(case: Case, records: list[Record], folder: Path) -> dict[str, Reference]:
    """One reference of each kind, with the files they need."""
    foreign = write_run(folder / "other", case.other, case.layout)
    file = folder / "point.safetensors"
    somewhere = np.linspace(-1.0, 1.0, flat(records[0].x).size)
    save_file(cut(somewhere, case.layout), file)
    by_step = {record.step: flat(record.x).astype(np.float64) for record in records}
    mean = np.mean([flat(record.x) for record in records[-3:]], axis=0).astype(np.float64)
    return {
        "final": Reference(by_step[records[-1].step], step=records[-1].step),
        "init": Reference(by_step[0], step=0),
        "step:20": Reference(by_step[20], step=20),
        "mean:3": Reference(mean, since=records[-3].step),
        str(foreign): Reference(flat(case.other[-1].x).astype(np.float64)),
        f"{foreign}@step:7": Reference(flat(case.other[7].x).astype(np.float64)),
        str(file): Reference(somewhere),
    }


def compare(
    case: Case,
    records: list[Record],
    folder: Path,
    *,
    replay: bool,
    ref_gradients: bool = False,
    skip: int = 1,
    optimizer: str = "SGD",
    **how_written: Any,
) -> tuple[Any, Tables]:
    references = references_of(case, records, folder)
    run = write_run(folder / "run", records, case.layout, optimizer=optimizer, **how_written)
    objective = write_objective(folder / "objective.py", case.problem, case.layout) if replay else None
    report = trajcheck.analyze(
        run,
        refs=list(references),
        objective=objective,
        ref_gradients=ref_gradients,
        skip=skip,
        replay_dtype="float64" if replay else None,
        loss_floor=FLOOR if replay else None,
        out=folder / "report",
        quiet=True,
    )
    expected = dense(
        records,
        references,
        case.problem.f if replay else None,
        case.problem.grad if replay else None,
        skip=skip,
        optimizer="plain-sgd" if optimizer == "SGD" else "other",
        c=BOUND,
        ref_gradients=ref_gradients,
        floor=FLOOR if replay else np.nan,
    )
    return report, expected


def assert_same(report: Any, expected: Tables) -> None:
    wrong: list[str] = []

    def check(frame: Any, columns: Columns, where: str) -> None:
        assert col(frame, "step").tolist() == columns["step"].tolist(), where
        for name, values in columns.items():
            try:
                assert_close(frame, name, values, where)
            except AssertionError as difference:
                wrong.append(str(difference).splitlines()[0])

    check(report.steps, expected.steps, "steps")
    for spec, columns in expected.references.items():
        check(towards(report.references, spec), columns, f"references towards {Path(spec).name}")
    assert not wrong, "\n" + "\n".join(wrong)
    assert set(STEPS) == set(expected.steps)
    assert set(REFERENCES) | set(REFERENCES_IF_ASKED) == set(expected.references["final"])


def assert_all_accounted(report: Any, ref_gradients: bool = False) -> None:
    assert_accounted(report.undefined, "steps", report.steps, STEPS)
    names = (*REFERENCES, *REFERENCES_IF_ASKED) if ref_gradients else REFERENCES
    assert_accounted(report.undefined, "references", report.references, names)


@pytest.mark.parametrize("replay", [True, False], ids=["replayed", "recorded"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", CASES)
def test_every_column(name: str, spacing: str, replay: bool, tmp_path: Path) -> None:
    case = CASES[name]
    records = keep(case.records, SPACINGS[spacing])
    report, expected = compare(case, records, tmp_path, replay=replay)
    assert_same(report, expected)
    assert_all_accounted(report)


@pytest.mark.parametrize("name", ["pieces", "network"])
def test_smoothness_towards_references(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    report, expected = compare(case, keep(case.records, range(0, 61, 2)), tmp_path, replay=True, ref_gradients=True)
    assert_same(report, expected)
    assert_all_accounted(report, ref_gradients=True)


@pytest.mark.parametrize("spacing", ["every", "logarithmic"])
def test_a_larger_skip(spacing: str, tmp_path: Path) -> None:
    case = CASES["pieces"]
    report, expected = compare(case, keep(case.records, SPACINGS[spacing]), tmp_path, replay=False, skip=5)
    assert_same(report, expected)
    assert_all_accounted(report)


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_other_optimizers_have_no_noise_floor_and_no_locally_optimal_rate(optimizer: str, tmp_path: Path) -> None:
    case = CASES["network"]
    report, expected = compare(case, case.records, tmp_path, replay=False, optimizer=optimizer)
    assert_same(report, expected)
    assert_all_accounted(report)


def test_a_run_of_several_chunks(tmp_path: Path) -> None:
    """Longer than any chunk of steps that is worked on at a time."""
    quadratic, rng = Quadratic.with_spectrum([0.02, 0.2, 1.0], seed=8), np.random.default_rng(4)
    runs = [descend(quadratic, rng.normal(size=3), quadratic.samples(300, rng), [0.05] * 300) for _ in range(2)]
    case = Case(quadratic, {"a": (2,), "b": ()}, *runs)
    report, expected = compare(case, case.records, tmp_path, replay=False)
    assert_same(report, expected)


def test_a_full_batch_stored_once(tmp_path: Path) -> None:
    network = TanhNetwork(features=3, hidden=4)
    rng = np.random.default_rng(2)
    z = network.sample(20, rng)
    runs = [descend(network, rng.normal(size=network.size), [z] * 30, [0.05] * 30) for _ in range(2)]
    case = Case(network, network.layout, *runs)
    report, expected = compare(case, case.records, tmp_path, replay=True, batch_once=True)
    assert_same(report, expected)


def distorted(records: list[Record]) -> list[Record]:
    """Recorded losses and gradients as another evaluator would have them: a little off."""
    return [
        Record(r.step, r.x, None if r.g is None else np.asarray(r.g) * 1.001, r.lr, r.tau, r.z, r.loss and r.loss + 1)
        for r in records
    ]


def test_with_an_objective_what_was_recorded_enters_no_column(tmp_path: Path) -> None:
    case = CASES["network"]
    report, expected = compare(case, distorted(case.records), tmp_path, replay=True)
    assert_same(report, expected)


def test_a_recorded_gradient_fills_in_where_a_batch_is_missing(tmp_path: Path) -> None:
    """In the columns of one row, but never in a sum that is compared with a sum of replayed losses."""
    case = CASES["network"]
    records = distorted(case.records)
    records[30].z = None
    report, expected = compare(case, records, tmp_path, replay=True)
    assert_same(report, expected)
    assert_all_accounted(report)


def test_records_without_a_gradient_or_a_batch_leave_gaps(tmp_path: Path) -> None:
    case = CASES["pieces"]
    records = list(case.records[:30])
    for step in (7, 8, 20):
        records[step] = Record(step, records[step].x, tau=records[step].tau)
    for replay in (True, False):
        report, expected = compare(case, records, tmp_path / str(replay), replay=replay)
        assert_same(report, expected)
        assert_all_accounted(report)


@pytest.mark.parametrize("replay_dtype", [None, "float32", "float64"])
def test_the_resolution_is_that_of_the_replay(replay_dtype: str | None, tmp_path: Path) -> None:
    """A small float32 run is replayed in float64 unless asked otherwise; in float32 gaps resolve at least 2^29 times
    worse, or as much as was measured (test_resolution.py)."""
    case = CASES["network"]
    run = write_run(tmp_path / "run", case.records[:9], case.layout, dtype=np.float32)
    objective = write_objective(tmp_path / "objective.py", case.problem, case.layout, dtype="float32")
    out = tmp_path / "report"
    report = trajcheck.analyze(run, refs=["init"], objective=objective, replay_dtype=replay_dtype, out=out, quiet=True)
    epsilon = 2.0**-23 if replay_dtype == "float32" else 2.0**-52
    rows = towards(report.references, "init")
    expected = BOUND * epsilon * (np.abs(col(rows, "loss")) + np.abs(col(rows, "loss_ref")))
    found = col(rows, "gap_resolution")
    assert np.isfinite(expected).all() and (found >= expected * (1 - 1e-12)).all()
    assert found.min() < 10 * expected.min()


def test_the_files_say_what_the_frames_say(tmp_path: Path) -> None:
    report, _ = compare(CASES["pieces"], CASES["pieces"].records, tmp_path, replay=True)
    for name in ("steps", "references", "undefined"):
        frame = getattr(report, name)
        table = pd.read_csv(Path(report.folder) / f"{name}.csv", dtype=str)
        assert table.columns.tolist() == frame.columns.tolist()
        for column in frame.select_dtypes("number"):
            np.testing.assert_array_equal(col(table, column), col(frame, column), err_msg=column)


def test_chosen_rows_are_those_of_the_whole_analysis(tmp_path: Path) -> None:
    """--steps moves neither init nor final nor the previous record; running columns start with the rows chosen."""
    case = CASES["network"]
    run = write_run(tmp_path / "run", case.records, case.layout)
    objective = write_objective(tmp_path / "objective.py", case.problem, case.layout)
    specs = ["final", "init"]
    whole, part = (
        trajcheck.analyze(
            run, refs=specs, objective=objective, steps=steps, replay_dtype="float64", out=out, quiet=True
        )
        for steps, out in ((None, tmp_path / "whole"), ("10:40:3", tmp_path / "part"))
    )
    chosen = list(range(10, 40, 3))
    assert part.steps["step"].tolist() == chosen
    running = ("_sum", "_ratio", "avg_", "exp_", "max_", "convexity_", "path_length", "_max", "_exp")
    for table, names in (("steps", STEPS), ("references", REFERENCES)):
        for spec in specs if table == "references" else [None]:
            frames = [getattr(report, table) for report in (whole, part)]
            if spec is not None:
                frames = [towards(frame, spec) for frame in frames]
            everywhere, here = frames
            expected = everywhere[everywhere["step"].isin(chosen)].reset_index(drop=True)
            for name in names:
                if name != "weight" and not any(mark in name for mark in running):
                    assert_close(here, name, col(expected, name), f"{table} {spec}")


def test_large_float32_runs_are_summed_in_float64(tmp_path: Path) -> None:
    """400,000 elements, more than one block: float32 differences, float64 products."""
    rng = np.random.default_rng(0)
    size = 400_001
    x = (1 + rng.random(size)).astype(np.float32)
    records = []
    for step in range(4):
        g = rng.random(size).astype(np.float32)
        records.append(Record(step, x, g, lr=0.01))
        x = x - np.float32(0.01) * g
    records.append(Record(4, x))
    layout: Layout = {"embedding": (1000, 400), "bias": (1,)}
    run = write_run(tmp_path / "run", records, layout, dtype=np.float32)
    report = trajcheck.analyze(run, refs=["final"], out=tmp_path / "report", quiet=True)
    expected = dense(records, {"final": Reference(x, step=4)}, c=BOUND)
    for name in ("param_norm", "grad_norm", "step_norm", "init_dist", "update_corr"):
        assert_close(report.steps, name, expected.steps[name], relative=1e-12)
    for name in ("ref_dist", "grad_dot_ref", "cos"):
        assert_close(report.references, name, expected.references["final"][name], relative=1e-12)

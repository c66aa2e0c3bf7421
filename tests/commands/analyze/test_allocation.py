"""allocation.csv: what each tensor made of the loss's change, against plain integrals in float64."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense import Record
from frames import col
from handwritten import cut
from quadratics import Layout, Quadratic, descend, keep
from sample_cases import NETWORK, analyzed, network_records, probe_batches, written

from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options

SAMPLES = ("own", "previous", "probe", "full")
NAMES = ("body.hidden.weight", "body.hidden.bias", "out", "gain")
RECORDS, PROBE = network_records(count=6, rate=0.15), probe_batches(3)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tanh network of four tensors (and an empty one) on every sample, by 4 points."""
    folder = tmp_path_factory.mktemp("allocation")
    run, objective, _ = written(folder, RECORDS, PROBE, name="with_data")
    options = {"sample": SAMPLES, "metrics": ("progress",), "refs": ("final",)}
    return analyzed(run, objective, folder / "report", allocate=True, path_integral=4, **options)


def of(report: Any, sample: str, tensor: str) -> pd.DataFrame:
    frame = report.allocation
    return frame[(frame["sample"] == sample) & (frame["tensor"] == tensor)].reset_index(drop=True)


def slopes(z: Any, before: np.ndarray, after: np.ndarray, parts: int) -> dict[str, float]:
    """<grad f(x + s d), d> of each tensor, integrated by 4 Gauss points on each of some parts of the chord."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    change, total = after - before, np.zeros_like(before)
    for part in range(parts):
        for s, weight in zip((part + (nodes + 1) / 2) / parts, weights / (2 * parts), strict=True):
            total += weight * NETWORK.grad(before + s * change, z) * change
    return {name: float(each.sum()) for name, each in cut(total, NETWORK.layout).items()}


@pytest.mark.parametrize("sample", SAMPLES[:3])
def test_each_tensor_has_its_part_of_the_integral(report: Any, sample: str) -> None:
    draws = {"own": [[r.z] for r in RECORDS], "previous": [[None], *([r.z] for r in RECORDS)]}
    batches = draws.get(sample, [PROBE] * len(RECORDS))
    sums: dict[str, Any] = dict.fromkeys(NAMES, 0.0)
    last = len(RECORDS) - (sample == "own")
    for t in range(1, last):
        ends = np.array(RECORDS[t - 1].x), np.array(RECORDS[t].x)
        found, exact = ([slopes(z, *ends, parts) for z in batches[t]] for parts in (1, 8))
        for name in NAMES:
            values, row = [part[name] for part in found], of(report, sample, name).iloc[t]
            sums[name] += np.mean(values)
            assert row["allocation"] == pytest.approx(np.mean(values), rel=1e-10, abs=1e-13)
            assert row["allocation_sum"] == pytest.approx(sums[name], rel=1e-10, abs=1e-12)
            assert abs(row["allocation"] - np.mean([part[name] for part in exact])) <= row["allocation_resolution"]
            if sample == "probe":
                assert row["allocation_se"] == pytest.approx(np.std(values, ddof=1) / 3**0.5, rel=1e-6, abs=1e-10)
    for name in NAMES:
        share = of(report, sample, name)["allocation_share"].iloc[last - 1]
        assert share == pytest.approx(sums[name] / sum(sums.values()), rel=1e-6)
    if sample == "own":
        assert np.isnan(of(report, sample, "out")["allocation"].iloc[-1])  # the last iterate has no sample


def test_the_tensors_sum_to_the_loss_change_within_the_error_of_the_path_integral(report: Any) -> None:
    assert "body.nothing" not in set(report.allocation["tensor"])
    for sample in SAMPLES:
        steps = report.steps[report.steps["sample"] == sample]
        total = report.allocation[report.allocation["sample"] == sample].groupby("step")["allocation"].sum(min_count=1)
        change = col(steps, "loss_change")
        here = np.isfinite(change)
        assert here.sum() >= 5
        np.testing.assert_allclose(total.to_numpy()[here], col(steps, "path_integral")[here], rtol=1e-12)
        if sample == "probe":  # whose error is the mean of those of the batches
            continue
        allowed = col(steps, "path_integral_error") * np.abs(change) * (1 + 1e-9) + 1e-14
        assert (np.abs(total.to_numpy() - change)[here] <= allowed[here]).all()


def test_shares_of_updates_are_those_of_the_signs(report: Any) -> None:
    """Undetermined within the resolution, and over batches within the standard error."""
    seen = set()
    for sample in SAMPLES:
        for name in NAMES:
            frame = of(report, sample, name)
            here = np.isfinite(col(frame, "allocation"))
            value, limit = col(frame, "allocation")[here], col(frame, "allocation_resolution")[here]
            if sample == "probe":
                limit = np.maximum(limit, col(frame, "allocation_se")[here])
            count = np.arange(1, here.sum() + 1)
            np.testing.assert_allclose(col(frame, "raised")[here], np.cumsum(value > limit) / count)
            np.testing.assert_allclose(col(frame, "lowered")[here], np.cumsum(value < -limit) / count)
            seen |= set(np.sign(np.where(np.abs(value) > limit, value, 0.0)))
    assert seen == {-1.0, 0.0, 1.0}


def two_groups(run: Path) -> None:
    """Say that the last two tensors are of a second parameter group."""
    about = json.loads((run / "run.json").read_text())
    for number, parameter in enumerate(about["parameters"]):
        parameter["group"] = int(number > 1)
    about["optimizer"]["groups"] *= 2
    (run / "run.json").write_text(json.dumps(about))


def quadratic_report(folder: Path, layout: Layout, steps: Sequence[int] | None = None, **options: Any) -> Any:
    """Of six coordinates, in tensors as `layout` cuts them."""
    problem, rng = Quadratic.with_spectrum([0.1, 0.3, 0.5, 1.0, 2.0, 5.0], seed=1), np.random.default_rng(0)
    records = descend(problem, rng.normal(size=6), problem.samples(20, rng), [0.3] * 20)
    records = records if steps is None else keep(records, steps)
    run, objective, _ = written(folder, records, problem=problem, layout=layout)
    if len(layout) == 4:
        two_groups(run)
    report = analyzed(
        run, objective, folder / "report", refs=("final",), allocate=True, metrics=("progress",), **options
    )
    return report, problem, records


CUTS: list[Layout] = [{"a": (4,), "b": (2,)}, {"a1": (1,), "a2": (3,), "b1": (1,), "b2": (1,)}]


def test_a_quadratic_is_exact_and_splitting_a_tensor_changes_nothing(tmp_path: Path) -> None:
    (whole, problem, records), (split, *_) = (quadratic_report(tmp_path / str(len(cut)), cut) for cut in CUTS)
    for t in range(1, 20):
        z, before, after = records[t].z, np.array(records[t - 1].x), np.array(records[t].x)
        middle = (problem.grad(before, z) + problem.grad(after, z)) / 2 * (after - before)
        expected = {"a": middle[:4].sum(), "b": middle[4:].sum()}
        for name, value in expected.items():
            assert of(whole, "own", name)["allocation"][t] == pytest.approx(value, rel=1e-11, abs=1e-13)
            parts = [of(split, "own", f"{name}{part}")["allocation"][t] for part in (1, 2)]
            assert sum(parts) == pytest.approx(value, rel=1e-11, abs=1e-13)
            group = split.allocation[(split.allocation["tensor"] == "") & (split.allocation["step"] == t)]
            row = group[group["group"].astype(float) == float(name == "b")].iloc[0]
            assert row["allocation"] == pytest.approx(value, rel=1e-11, abs=1e-13)
    assert split.summary["allocation"]["own"]["groups"].keys() == {"0", "1"}
    assert set(whole.allocation["tensor"]) == {"a", "b"}  # one group: no rows of groups
    assert whole.allocation["numel"].tolist() == [4] * 21 + [2] * 21


def test_an_expression_sums_tensors(tmp_path: Path) -> None:
    report, *_ = quadratic_report(tmp_path, CUTS[1], group=("^[a-z]",))
    tensors = report.allocation[report.allocation["tensor"] != ""]
    assert set(tensors["tensor"]) == {"a", "b"}
    groups = report.allocation[report.allocation["tensor"] == ""]
    np.testing.assert_allclose(col(tensors, "allocation"), col(groups, "allocation"), rtol=1e-12)


def test_thinned_rows_weigh_and_have_an_error(tmp_path: Path) -> None:
    """Pairs recorded every three steps: sums weigh three, and the error is that of any sum over rows."""
    report, *_ = quadratic_report(tmp_path, CUTS[0], steps=[0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19])
    frame = of(report, "own", "a")
    frame = frame[np.isfinite(frame["allocation"])]
    value = col(frame, "allocation")
    whole = report.steps[np.isfinite(report.steps["loss_change"])]
    weights = np.diff(col(whole, "loss_change_sum"), prepend=0.0) / col(whole, "loss_change")
    assert weights.max() > 1.9
    np.testing.assert_allclose(col(frame, "allocation_sum"), np.cumsum(weights * value), rtol=1e-9)
    middle = (weights + np.r_[weights[:1], weights[:-1]]) / 2
    middle[0] = 0.0
    gaps, squares = np.diff(value, prepend=value[0]), np.zeros(len(value))
    for i in range(1, len(value)):
        squares[i] += (
            (middle[i] * gaps[i]) ** 2 + (middle[i - 1] * gaps[i]) ** 2 / 2 + (middle[i] * gaps[i - 1]) ** 2 / 2
        )
    np.testing.assert_allclose(col(frame, "allocation_sum_rows_se"), np.sqrt(np.cumsum(squares) / 2), rtol=1e-9)


def test_a_tensor_that_raises_the_loss_is_found(tmp_path: Path) -> None:
    """Two coordinates descend, and one is driven up its own slope."""
    problem = Quadratic(np.diag([1.0, 2.0, 0.5]))
    x, records = np.array([1.0, 1.0, 0.5]), []
    for t in range(8):
        z = np.zeros((1, 3))
        records.append(Record(t, x.copy(), problem.grad(x, z), lr=0.1, z=z, loss=problem.f(x, z)))
        x = x * np.array([0.8, 0.8, 1.1])
    run, objective, _ = written(tmp_path, records, problem=problem, layout={"down": (2,), "up": (1,)})
    report = analyzed(run, objective, tmp_path / "report", refs=("final",), allocate=True)
    up, down = of(report, "own", "up").iloc[-1], of(report, "own", "down").iloc[-1]
    assert (up["raised"], up["lowered"], down["raised"], down["lowered"]) == (1.0, 0.0, 0.0, 1.0)
    assert up["allocation_sum"] == pytest.approx(0.25 * (0.5 * 1.1**7) ** 2 - 0.25 * 0.5**2)
    assert up["allocation_share"] < 0 < down["allocation_share"]


@dataclass
class Kinked:
    """f(x; z) = mean |x - z|, whose slope jumps."""

    size: int = 6

    def f(self, x: np.ndarray, z: np.ndarray) -> float:
        return float(np.abs(x - z).mean())

    def grad(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(np.sign(x - z) / self.size)

    def torch_loss(self) -> str:
        return """
def loss(x, batch):
    return (x - batch.to(x.dtype)).abs().mean()
"""


def test_at_kinks_what_is_not_certain_is_undetermined(tmp_path: Path) -> None:
    """Against the exact |x_i - z_i| - |x_i' - z_i| of each coordinate: signs that are told are right."""
    problem, rng = Kinked(), np.random.default_rng(3)
    records = [Record(t, rng.normal(size=6), np.zeros(6), lr=0.1, z=rng.normal(size=6)) for t in range(40)]
    layout: Layout = {f"t{i}": (1,) for i in range(6)}
    run, objective, _ = written(tmp_path, records, problem=problem, layout=layout)
    report = analyzed(run, objective, tmp_path / "report", refs=("final",), allocate=True, metrics=("progress",))
    told = wrong = crossed = off = 0
    for i in range(6):
        frame = of(report, "own", f"t{i}")
        for t in range(1, 40):
            one, other = records[t].x[i] - records[t].z[i], records[t - 1].x[i] - records[t].z[i]  # type: ignore[index]
            exact, value = (abs(one) - abs(other)) / 6, frame["allocation"][t]
            certain = abs(value) > frame["allocation_resolution"][t]
            told += certain
            wrong += certain and np.sign(value) != np.sign(exact)
            crossed += one * other < 0
            off += abs(value - exact) > frame["allocation_resolution"][t] + 1e-15
    assert crossed > 60 and told > 120
    assert wrong == 0 and off <= 0.1 * 6 * 39  # a kink before the first point, which none of them sees, turns no sign


def test_what_it_takes_is_said() -> None:
    asked = Options(("final",), "run", allocate=True)
    asked.check()
    assert asked.path_points == 3
    for change, words in (({"path_integral": 2}, "3 points"), ({"metrics": ("secant",)}, "progress")):
        with pytest.raises(UsageError, match=words):
            replace(asked, **change).check()
    with pytest.raises(UsageError, match="--allocate"):
        replace(asked, objective=None).check()

"""averages.csv: losses at averages of recorded iterates, against plain averages in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from counted import estimate
from dense import Record
from frames import col
from handwritten import write_run
from networks import Logistic
from quadratics import descend
from sample_cases import NETWORK, accounted, analyzed, network_records, probe_batches, written
from torch import nn

import trajcheck
import trajcheck.replay.averages.averaged_replay
from trajcheck.errors import UsageError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.measuring.options import Options
from trajcheck.metrics.columns import column
from trajcheck.metrics.horizon import ONE_AVERAGE, ONE_BATCH, chosen
from trajcheck.metrics.weights import Weights
from trajcheck.objective.objective import Objective
from trajcheck.replay.averages.running import RunningAverages
from trajcheck.runs.trajectory import open_trajectory
from trajcheck.scalars.averages import average_wrong, averages_of

AVERAGES = ("last:3", "ema:0.8")
#: Records at uneven strides.
STEPS = [0, 1, 3, 4, 7, 8, 9, 12]
RECORDS, PROBE = network_records(count=12, rate=0.15, steps=STEPS), probe_batches(4)
FEW: dict[str, Any] = {"metrics": ("geometry",), "refs": ("final",)}


def average_of(name: str, steps: Sequence[int], points: np.ndarray) -> np.ndarray | None:
    """The average at the last of some records: the definition, written out."""
    kind, _, number = name.partition(":")
    if kind == "last":
        return None if len(points) < int(number) else np.asarray(points[-int(number) :].mean(axis=0))
    decay, m, mass = float(number), np.zeros_like(points[0]), 0.0
    for i, point in enumerate(points):
        kept = decay ** (steps[i] - steps[i - 1] if i else 1)
        m, mass = kept * m + (1 - kept) * point, kept * mass + (1 - kept)
    return m / mass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder, objective, _ = written(tmp_path_factory.mktemp("averages"), RECORDS, PROBE, name="with_data")
    return folder, objective


@pytest.fixture(scope="module")
def report(run: tuple[Path, str]) -> Any:
    return analyzed(*run, run[0].parent / "report", sample=("own", "probe", "full"), average=AVERAGES, **FEW)


def of(report: Any, name: str, sample: str = "probe") -> pd.DataFrame:
    frame = report.averages
    return frame[(frame["average"] == name) & (frame["sample"] == sample)].reset_index(drop=True)


@pytest.mark.parametrize("name", AVERAGES)
def test_the_losses_are_those_at_the_averages(report: Any, name: str) -> None:
    points = np.array([record.x for record in RECORDS])
    losses = np.array([[NETWORK.f(x, z) for z in PROBE] for x in points])
    frame = of(report, name)
    assert frame["step"].tolist() == STEPS
    seen = 0
    for i in range(len(STEPS)):
        row, average = frame.iloc[i], average_of(name, STEPS[: i + 1], points[: i + 1])
        assert row["loss"] == pytest.approx(losses[i].mean(), rel=1e-12)
        if average is None:
            assert np.isnan(row["loss_avg"])
            assert STEPS[i] in accounted(report, "averages", "loss_avg")
            continue
        at = np.array([NETWORK.f(average, z) for z in PROBE])
        mean = average_of(name, STEPS[: i + 1], losses[: i + 1])
        assert mean is not None
        for column_, values in (("loss_avg", at), ("valley_height", losses[i] - at), ("jensen_gap", at - mean)):
            assert row[column_] == pytest.approx(values.mean(), rel=1e-10, abs=1e-13), (column_, i)
            error = np.std(values, ddof=1) / 2
            assert row[f"{column_}_se"] == pytest.approx(error, rel=1e-6, abs=1e-13), (column_, i)
        assert 0 < row["valley_height_resolution"] < 1e-11
        seen += abs(row["valley_height"]) > row["valley_height_resolution"]
    assert seen >= 5


def test_a_data_set_has_them_and_own_samples_do_not(report: Any) -> None:
    assert set(report.averages["sample"]) == {"probe", "full"}
    assert np.isfinite(of(report, "last:3", "full")["valley_height"]).sum() == len(STEPS) - 2
    assert "valley_height_se" not in report.averages or of(report, "last:3", "full")["valley_height_se"].isna().all()


def test_the_best_is_chosen_on_one_half_and_reported_on_the_other(report: Any) -> None:
    points = np.array([record.x for record in RECORDS])
    heights = {}
    for name in AVERAGES:
        average = average_of(name, STEPS, points)
        assert average is not None
        heights[name] = np.array([NETWORK.f(points[-1], z) - NETWORK.f(average, z) for z in PROBE])
    best = max(heights, key=lambda name: heights[name][::2].mean())
    found = report.summary["averages"]["probe"]["best_at_end"]
    assert found["average"] == best and found["batches"] == 2
    assert found["valley_height"] == pytest.approx(heights[best][1::2].mean(), rel=1e-9)
    assert found["valley_height_se"] == pytest.approx(np.std(heights[best][1::2], ddof=1) / 2**0.5, rel=1e-6)
    assert report.summary["averages"]["full"]["best_at_end"] == ONE_BATCH


def test_pure_noise_is_not_the_best_on_the_batches_that_did_not_choose_it() -> None:
    rng = np.random.default_rng(0)
    weights = Weights(np.arange(3.0), 0.0, 3)
    by_chance: list[Any] = []
    fair: list[Any] = []
    for _ in range(200):
        heights = {str(n): [column(rng.normal(size=3)) for _ in range(4)] for n in range(8)}
        found = chosen(heights, weights, at_end=True)
        assert isinstance(found, dict)
        by_chance.append(max(np.mean([each.values[2] for each in columns]) for columns in heights.values()))
        fair.append(found["valley_height"])
    assert np.mean(by_chance) > 0.6 and abs(np.mean(fair)) < 3 * np.std(fair) / 200**0.5
    one = {"last:2": [column([1.0, 2.0, 3.0])] * 4}
    assert chosen(one, weights, at_end=False) == ONE_AVERAGE


@dataclass
class Wells:
    """f(x; z) = mean (x^2 - 1)^2: two wells, and a hill between them."""

    size: int = 3

    def f(self, x: np.ndarray, z: np.ndarray) -> float:
        return float(((x**2 - 1) ** 2).mean())

    def grad(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(4 * x * (x**2 - 1) / self.size)

    def torch_loss(self) -> str:
        return """
def loss(x, batch):
    return ((x**2 - 1) ** 2).mean() + 0 * batch.sum()
"""


def test_a_convex_loss_of_an_average_is_at_most_the_mean(tmp_path: Path) -> None:
    """Logistic regression on every row; two wells are the control."""
    convex, rng = Logistic(4), np.random.default_rng(2)
    samples = [convex.sample(6, rng) for _ in range(14)]
    records = descend(convex, rng.normal(size=4), samples, [2.0] * 14)
    probe = [convex.sample(6, rng) for _ in range(2)]
    kinds = {"average": ("last:2", "last:6", "ema:0.5", "ema:0.95"), "sample": ("probe",)}
    run, objective, _ = written(tmp_path / "convex", records, probe, problem=convex)
    frame = analyzed(run, objective, tmp_path / "convex-report", **kinds, **FEW).averages
    here = np.isfinite(frame["jensen_gap"])
    assert here.sum() == 14 + 10 + 15 + 15
    assert (frame["jensen_gap"] <= frame["jensen_gap_resolution"])[here].all()
    assert (frame["jensen_gap"] < -frame["jensen_gap_resolution"])[here].mean() > 0.9
    wells = Wells()
    jumps = [Record(t, (-1.0) ** t * np.ones(3), np.zeros(3), lr=0.1, z=np.zeros(2), loss=0.0) for t in range(8)]
    run, objective, _ = written(tmp_path / "wells", jumps, [np.zeros(2)] * 2, problem=wells)
    found = analyzed(run, objective, tmp_path / "wells-report", average=("last:2",), sample=("probe",), **FEW)
    np.testing.assert_allclose(col(found.averages, "jensen_gap")[1:], 1.0)
    assert found.summary["averages"]["probe"]["averages"]["last:2"]["jensen"]["not_convex"] == 1.0


def test_the_choice_of_rows_and_memory_change_no_bit(
    run: tuple[Path, str], report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All records are averaged whatever is a row; what was evaluated is told beforehand, and is not evaluated again."""
    losses = [0]
    real = Objective.loss
    monkeypatch.setattr(Objective, "loss", lambda *a, **k: losses.__setitem__(0, losses[0] + 1) or real(*a, **k))
    made = trajcheck.replay.averages.averaged_replay.AveragedReplay
    passes: list[int] = []
    monkeypatch.setattr(made, "rows", _watched(made.rows, passes, losses))
    numel = open_trajectory(run[0]).numel
    asked: dict[str, Any] = {"sample": ("probe",), "average": AVERAGES, "steps": "7:13", "memory": None, **FEW}
    seen = []
    for memory in (None, 100_000, 16 * numel):
        asked["memory"] = None if memory is None else f"{memory}B"
        if memory == 16 * numel:  # too little for the replay itself, which is what it is a part of
            with pytest.raises(UsageError, match="--memory"):
                analyzed(*run, tmp_path / "small", **asked)
            continue
        cost = estimate(run[0], Options(objective=run[1], replay_dtype="float64", **asked))
        some = analyzed(*run, tmp_path / str(memory), **asked)
        assert passes[-1] == cost.averaged[1] > 0
        seen.append(some.averages)
        again = analyzed(*run, tmp_path / str(memory), **asked)
        assert len(passes) == len(seen) and again.averages.equals(some.averages)
    for frame in seen:
        for name in AVERAGES:
            whole = of(report, name)
            whole = whole[whole["step"] >= 7].reset_index(drop=True)
            mine = frame[frame["average"] == name].reset_index(drop=True)
            for column_ in ("loss", "loss_avg", "valley_height", "valley_height_se"):
                np.testing.assert_array_equal(col(mine, column_), col(whole, column_))
    assert np.isfinite(seen[0]["jensen_gap"]).sum() == 2  # of last:3, whose iterates are rows from the third on


def _watched(rows: Any, passes: list[int], losses: list[int]) -> Any:
    def watched(self: Any, *arguments: Any) -> Any:
        before = losses[0]
        yield from rows(self, *arguments)
        passes.append(losses[0] - before)

    return watched


def test_sums_over_the_last_are_exact_wherever_they_begin(tmp_path: Path) -> None:
    """Values over sixteen decades, in float32: as math.fsum has them, to the last bit."""
    rng = np.random.default_rng(1)
    points = (10.0 ** rng.uniform(-8, 8, (30, 5)) * rng.choice([-1, 1], (30, 5))).astype(np.float32)
    records = [Record(t, point.astype(np.float64)) for t, point in enumerate(points)]
    trajectory = open_trajectory(write_run(tmp_path / "run", records, {"a": (2,), "b": (3,)}, dtype=np.float32))
    averages = averages_of(("last:7",))

    def at(start: int, place: int) -> np.ndarray:
        with ExtentReader() as reader:
            running = RunningAverages(trajectory, averages, start, reader)
            while running.place < place:
                running.advance()
            point = running.point(0, lambda name: torch.float64, torch.device("cpu"))
        return np.concatenate([point[name].numpy() for name in ("a", "b")])

    for place in (6, 7, 20, 29):
        exact = [math.fsum(float(each) for each in points[place - 6 : place + 1, i]) / 7 for i in range(5)]
        np.testing.assert_array_equal(at(0, place), exact)
        np.testing.assert_array_equal(at(place - 6, place), exact)


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        self.double()


def squared(model: nn.Module, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    return (model(inputs) - targets).square().mean()


OBJECTIVE = """
import torch
from torch import nn

def objective():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    return model, lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
"""


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batch_statistics_are_computed_anew(mode: str, tmp_path: Path) -> None:
    """In evaluation as torch.optim.swa_utils.update_bn has them, at both points; in training they are the batch's."""
    torch.manual_seed(0)
    model = Normalised()
    batches = [(torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)) for _ in range(6)]
    for batch in batches[:3]:
        model(batch[0])  # statistics, before they are frozen
    model.train(mode == "train")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe, points = batches[4:], []
    with trajcheck.Recorder(tmp_path / "run", model, optimizer, every=1) as recorder:
        recorder.probe(probe)
        for batch in batches[:4]:
            points.append({name: p.detach().clone() for name, p in model.named_parameters()})
            loss = squared(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    objective = f"{tmp_path / 'objective.py'}:objective"
    report = trajcheck.analyze(
        tmp_path / "run", objective=objective, sample=("probe",), average=("last:2",), out=tmp_path / "report", **FEW
    )
    frame = report.averages
    assert frame is not None
    for t in (1, 2, 3):
        expected = []
        for point in (points[t], {name: (points[t][name] + points[t - 1][name]) / 2 for name in points[t]}):
            fresh = Normalised()
            fresh.load_state_dict({**model.state_dict(), **point})
            if mode == "eval":
                torch.optim.swa_utils.update_bn([(inputs,) for inputs, _ in probe], fresh)
            fresh.train(mode == "train")
            expected.append(float(torch.stack([squared(fresh, batch) for batch in probe]).mean().detach()))
        row = frame.iloc[t]
        assert (row["loss"], row["loss_avg"]) == pytest.approx(expected, rel=1e-12)
    assert abs(frame["valley_height"][3]) > 1e-4


def test_a_program_that_reads_batch_statistics_is_refused_with_the_reason() -> None:
    """An exported program cannot compute them anew; one in training takes those of its batch."""
    made = trajcheck.replay.averages.averaged_replay.AveragedReplay
    replay: Any = object.__new__(made)
    buffers = {"head.norm.running_mean": None, "head.norm.num_batches_tracked": None, "table": None}
    snapshot: Any = SimpleNamespace(modes={"": "eval"}, buffers=buffers)
    for modes, refused in (({"": "eval"}, True), ({"head": "eval"}, True), ({}, False), ({"body": "eval"}, False)):
        replay.objective = SimpleNamespace(exported_modes=modes)
        why = replay._no_statistics(snapshot)
        assert ("head.norm.running_mean" in why and "FILE.py:NAME" in why) == refused == bool(why), modes


@pytest.mark.parametrize(
    "said", ["last", "last:1", "last:0", "ema:1", "ema:0.0", "ema:1.5", "mean:3", "last:3.0", "ema:x"]
)
def test_other_words_are_refused(said: str) -> None:
    assert "last:K" in average_wrong(said)
    with pytest.raises(UsageError, match="last:K"):
        Options(("final",), "run", sample=("probe",), average=(said,)).check()


def test_what_it_takes_is_said(run: tuple[Path, str], tmp_path: Path) -> None:
    asked = Options(("final",), "run", sample=("own", "probe"), average=("ema:.9", "ema:0.9", "last:2"))
    asked.check()
    assert [each.spec for each in averages_of(asked.average)] == ["ema:.9", "last:2"]
    with pytest.raises(UsageError, match="probe or full"):
        replace(asked, sample=()).check()
    report = analyzed(*run, tmp_path / "report", sample=("probe",), average=("last:50",), steps=":2", **FEW)
    assert any("last:50: no row has one" in each for each in report.incomplete)
    assert "fewer than 50" in " ".join(report.undefined["reason"])

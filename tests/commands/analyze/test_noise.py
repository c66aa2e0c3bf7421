"""Noise between the batches of a row, from --sample probe: every column against tests/helpers/dense_noise.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counted import estimate
from dense import flat
from dense_noise import COLUMNS, noise
from frames import assert_accounted, assert_close, col
from sample_cases import NETWORK, analyzed, assert_same_values, network_records, probe_batches, rows_of, written

import trajcheck
from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.batches.examples import Examples
from trajcheck.runs.formats.native.metadata import as_micro_gradients
from trajcheck.runs.trajectory import open_trajectory

NAMES = [f"{name}{end}" for name in COLUMNS for end in ("", "_se")]
HERE: dict[str, Any] = {"sample": ("probe",), "metrics": ("noise",), "refs": ("final",)}
SIZES = (4, 2, 5, 4, 3, 4)


def unequal_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    stream = np.random.default_rng(33)
    return [NETWORK.sample(size, stream) for size in SIZES]


def expected(task: Any, batches: Sequence[Any], sizes: Sequence[float]) -> dict[str, np.ndarray]:
    rows = [noise([flat(task.program.grad(record.x, batch)) for batch in batches], sizes) for record in task.records]
    return {name: np.array([row[name] for row in rows]) for name in NAMES}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any, Any]:
    folder = tmp_path_factory.mktemp("probed")
    run, objective, task = written(folder, network_records(6), unequal_batches())
    return run, objective, task, analyzed(run, objective, folder / "report", **HERE)


def test_every_column_on_probe_batches_of_unequal_size(probed: tuple[Path, str, Any, Any]) -> None:
    _, _, task, report = probed
    steps = report.steps
    for name, values in expected(task, task.probe, SIZES).items():
        assert_close(steps, name, values)
    assert np.isfinite(col(steps, "growth")).any()
    assert_accounted(report.undefined, "steps", steps, NAMES)


def test_pl_on_probe_batches_is_of_the_gradient_without_noise(
    probed: tuple[Path, str, Any, Any], tmp_path: Path
) -> None:
    """G2 / (2 D), D the mean over the batches; empty where G2 is not above its error, which the ledger counts."""
    run, objective, task, _ = probed
    report = analyzed(run, objective, tmp_path / "report", **{**HERE, "metrics": ("convexity",)})
    found = expected(task, task.probe, SIZES)
    star = task.records[-1].x
    above = np.array(
        [np.mean([task.program.f(row.x, z) - task.program.f(star, z) for z in task.probe]) for row in task.records]
    )
    spread = (
        np.array(
            [
                np.std([task.program.f(row.x, z) - task.program.f(star, z) for z in task.probe], ddof=1)
                for row in task.records
            ]
        )
        / len(SIZES) ** 0.5
    )
    square, error = found["grad_true_sq"], found["grad_true_sq_se"]
    counted, resolved = above > spread, square > error
    above = np.where(counted, above, np.nan)
    pl = np.where(resolved, square / (2 * above), np.nan)
    assert_close(report.references, "pl", pl)
    assert_close(report.references, "pl_se", pl * (error / square + spread / above))
    ledger = report.assumptions.set_index("assumption").loc["pl"]
    assert counted.sum() > 0 and ledger["rows"] == counted.sum() and ledger["violated"] == 0
    assert ledger["constant"] == pytest.approx(np.nanmin(pl), rel=1e-9)


def test_little_memory_changes_no_bit_and_evaluates_again(probed: tuple[Path, str, Any, Any], tmp_path: Path) -> None:
    run, objective, _, report = probed
    told = estimate(run, Options(**HERE, objective=objective, replay_dtype="float64"))
    smallest = f"{told.device_minimum}B"
    least = analyzed(run, objective, tmp_path / "least", **HERE, memory=smallest)
    assert_same_values(report.steps, least.steps)
    evaluations = [each.summary["replay"]["evaluations"] for each in (report, least)]
    assert evaluations[1] == evaluations[0] + 6 * 7, "each probe batch once more on each row"
    again = estimate(run, Options(**HERE, objective=objective, replay_dtype="float64", memory=smallest))
    assert [each.losses + each.gradients for each in (told, again)] == evaluations
    assert "two batches of a row are asked whether the loss is a mean over its examples" in " ".join(str(told).split())


def test_tensor_by_tensor_the_squares_add_up(probed: tuple[Path, str, Any, Any], tmp_path: Path) -> None:
    """Whatever the tensors are cut into: G2 and the trace of all are the sums over tensors."""
    run, objective, _, report = probed
    layers = analyzed(run, objective, tmp_path / "layers", **HERE, layers=True).layers
    path = layers[layers["ref"].isna() | (layers["ref"] == "")]
    assert path["tensor"].nunique() == 4
    for name in ("grad_true_sq", "noise_trace"):
        assert_close(report.steps, name, path.groupby("step")[name].sum().to_numpy())


OBJECTIVE = """
import torch


def made():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()


def mean(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1])


def total(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1], reduction="sum")


def counted(model, batch):
    return mean(model, batch), 2 * len(batch[0])


def contrast(model, batch):
    return torch.cdist(model(batch[0]), model(batch[0])).mean()


def of_mean():
    return made(), mean


def of_total():
    return made(), total


def of_counted():
    return made(), counted


def of_contrast():
    return made(), contrast
"""


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[Any]]:
    """Three steps over five micro-batches of unequal size, by these as weights; the first step's are the probe."""
    folder = tmp_path_factory.mktemp("accumulated")
    (folder / "objective.py").write_text(OBJECTIVE)
    scope: dict[str, Any] = {}
    exec(OBJECTIVE, scope)
    model, stream = scope["made"](), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first: list[Any] = []
    with trajcheck.Recorder(folder / "run", model, optimizer, every=1, quiet=True) as recorder:
        for _ in range(3):
            batches = [(torch.randn(n, 3, generator=stream).double(), torch.ones(n, 1).double()) for n in SIZES[:5]]
            first = first or batches
            for batch in batches:
                loss, weight = scope["mean"](model, batch), len(batch[0]) / sum(SIZES[:5])
                (weight * loss).backward()
                recorder.observe(batch, loss, weight)
            optimizer.step()
            optimizer.zero_grad()
        recorder.probe(first)
    return folder / "run", f"{folder / 'objective.py'}:of_mean", first


def test_micro_batches_tell_what_the_same_batches_tell_as_a_probe(
    accumulated: tuple[Path, str, list[Any]], tmp_path: Path
) -> None:
    run, objective, first = accumulated
    both = {**HERE, "sample": ("own", "probe")}
    steps = analyzed(run, objective, tmp_path / "report", **both).steps
    own, probe = rows_of(steps, "own"), rows_of(steps, "probe")
    scope: dict[str, Any] = {}
    exec(OBJECTIVE, scope)
    model = scope["made"]()
    gradients = []
    for batch in first:
        model.zero_grad()
        scope["mean"](model, batch).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy())
    for name, value in noise(gradients, list(map(float, SIZES[:5]))).items():
        np.testing.assert_allclose([col(each, name)[0] for each in (own, probe)], value, rtol=1e-6, err_msg=name)
    assert not np.isnan(col(own, "coherence")[:3]).any() and np.isnan(col(own, "coherence")[3])
    assert (col(own, "coherence")[1:3] != col(probe, "coherence")[1:3]).all()


def test_micro_batches_that_are_not_held_are_evaluated_again(
    accumulated: tuple[Path, str, list[Any]], tmp_path: Path
) -> None:
    run, objective, _ = accumulated
    chosen = {**HERE, "sample": ("own",), "layers": True}
    held = analyzed(run, objective, tmp_path / "held", **chosen)
    told = Options(**chosen, objective=objective, replay_dtype="float64")
    smallest = f"{estimate(run, told).device_minimum}B"
    again = analyzed(run, objective, tmp_path / "again", **chosen, memory=smallest)
    for one, other in ((held.steps, again.steps), (held.layers, again.layers)):
        assert_same_values(one, other)
    found = [each.summary["replay"]["evaluations"] for each in (held, again)]
    assert found == [3, 6]
    assert [estimate(run, replace(told, memory=size)).gradients for size in (None, smallest)] == found
    saved = analyzed(run, objective, tmp_path / "held", **chosen)
    assert saved.summary["scalars"]["computed"] == 0
    assert_same_values(held.steps, saved.steps)


def test_what_a_loss_is_over_its_examples(accumulated: tuple[Path, str, list[Any]], tmp_path: Path) -> None:
    """A count that the loss returns is how many it is the mean of; a sum over batches of unequal size has nothing."""
    run, objective, _ = accumulated
    both = {**HERE, "sample": ("own", "probe")}
    reports = {
        loss: analyzed(run, objective.replace("of_mean", f"of_{loss}"), tmp_path / loss, **both)
        for loss in ("mean", "counted", "total")
    }
    mean, counted, total = (each.steps[each.steps["step"] < 3] for each in reports.values())
    assert_close(counted, "noise_trace", 2 * col(mean, "noise_trace"))
    assert not np.isnan(col(counted, "noise_trace")).any()
    assert not set(total) & {"grad_true_sq", "growth"} and not np.isnan(col(total, "batch_cos")).any()
    reasons = reports["total"].undefined.query("column == 'growth'")["reason"]
    assert reasons.str.contains("unequal size").any()


@pytest.mark.parametrize(("loss", "averaged"), [("mean", 1.0), ("total", 0.0), ("contrast", None), ("counted", 1.0)])
def test_a_loss_is_asked_what_it_is(loss: str, averaged: float | None) -> None:
    scope: dict[str, Any] = {}
    exec(OBJECTIVE, scope)
    stream = torch.Generator().manual_seed(3)
    samples = [
        Sample({"0": torch.randn(n, 3, generator=stream).double(), "1": torch.ones(n, 1).double()}) for n in SIZES
    ]
    numbers = Examples(Objective(scope["made"](), scope[loss]), samples).of_probe(samples)
    factor = 2 if loss == "counted" else 1
    assert numbers == [{"examples": float(factor * size), "averaged": averaged} for size in SIZES]


@pytest.mark.parametrize("memory", [False, True])
def test_the_index_of_tails_of_each_tensor(memory: bool, tmp_path: Path) -> None:
    """As from whole gradients in memory, held or not; two tensors together are their coordinates together."""
    probe = probe_batches(10)
    run, objective, task = written(tmp_path, network_records(2), probe)
    chosen: dict[str, Any] = {**HERE, "tail_index": True, "group": ("^body",)}
    if memory:
        told = estimate(run, Options(**chosen, objective=objective, replay_dtype="float64"))
        chosen["memory"] = f"{told.device_minimum}B"
    layers = analyzed(run, objective, tmp_path / "report", **chosen).layers
    layers = layers[layers["ref"].isna() | (layers["ref"] == "")]
    record = task.records[1]
    gradients = [task.program.grad(record.x, batch) for batch in probe]
    body = np.array([flat({n: g for n, g in each.items() if n.startswith("body")}) for each in gradients], dtype=float)
    z = (body - body.mean(axis=0)) / body.std(axis=0, ddof=1)
    blocks = np.stack([z[at : at + 3].sum(axis=0) for at in (0, 3, 6)])
    expected = np.log(3) / (np.log(np.abs(blocks)).mean() - np.log(np.abs(z)).mean())
    row = layers[(layers["step"] == 1) & (layers["tensor"] == "body")]
    assert col(row, "tail_index")[0] == pytest.approx(expected, rel=1e-9)
    assert 2 < col(row, "tail_index_null")[0] < 3 and col(row, "tail_index_null_se")[0] > 0


def test_tails_of_few_or_unequal_batches_are_not_told(probed: tuple[Path, str, Any, Any], tmp_path: Path) -> None:
    run, objective, _, _ = probed
    report = analyzed(run, objective, tmp_path / "report", **HERE, tail_index=True, layers=True)
    assert "tail_index" not in report.layers
    reasons = report.undefined.query("table == 'layers' and column == 'tail_index'")["reason"]
    assert reasons.str.contains("takes 8 batches").all() and len(reasons)


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"sample": ("own",), "layers": True}, "add --sample probe"),
        ({}, "add --layers"),
        ({"metrics": ("secant",), "layers": True}, "add noise"),
    ],
)
def test_what_the_index_of_tails_needs(chosen: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Options(**{**HERE, "tail_index": True, "objective": "run", **chosen}).check()


def recorded(folder: Path, **options: Any) -> Path:
    """The steps of `accumulated`, and what the Recorder knows of their micro-batches' gradients."""
    scope: dict[str, Any] = {}
    exec(OBJECTIVE, scope)
    model, stream = scope["made"](), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    early, weighed = options.pop("early", False), options.pop("weighed", True)
    with trajcheck.Recorder(folder, model, optimizer, every=1, quiet=True, micro_gradients=True, **options) as recorder:
        for step in range(3):
            batches = [(torch.randn(n, 3, generator=stream).double(), torch.ones(n, 1).double()) for n in SIZES[:5]]
            for batch in batches[: 1 if step == 2 else 5]:
                weight = len(batch[0]) / sum(SIZES[:5]) if weighed else 0.0
                loss = scope["mean"](model, batch)
                if early:
                    recorder.observe(batch, loss, weight)
                (weight * loss).backward()
                if not early:
                    recorder.observe(batch, loss, weight)
            optimizer.step()
            optimizer.zero_grad()
    return folder


def test_micro_gradients_that_were_recorded_need_no_replay(
    accumulated: tuple[Path, str, list[Any]], tmp_path: Path
) -> None:
    run = recorded(tmp_path / "run")
    chosen = {**HERE, "sample": ("own",), "layers": True}
    replayed = analyzed(accumulated[0], accumulated[1], tmp_path / "replayed", **chosen).steps
    report = analyzed(run, "none", tmp_path / "report", **chosen, replay_dtype=None)
    steps = report.steps
    for name in NAMES:
        if name.startswith(("noise_trace", "noise_scale")):
            assert name not in steps, "without the loss nobody knows what it is a mean of"
            continue
        np.testing.assert_allclose(col(steps, name)[:2], col(replayed, name)[:2], rtol=1e-9, err_msg=name)
        assert np.isnan(col(steps, name)[2:]).all()
    assert_accounted(report.undefined, "steps", steps, [name for name in NAMES if name in steps])
    assert report.layers is not None and "growth" not in report.layers
    reasons = report.undefined.query("table == 'layers' and column == 'growth'")["reason"]
    assert reasons.str.contains("for all tensors together").any()


@pytest.mark.parametrize(
    ("options", "why"),
    [({"early": True}, "after each backward"), ({"weighed": False}, "weight"), ({"scaler": "cpu"}, "loss scale")],
)
def test_micro_gradients_that_are_not_known_are_not_recorded(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    if "scaler" in options:
        options = {"scaler": torch.amp.GradScaler("cpu")}
    snapshot = open_trajectory(recorded(tmp_path / "run", **options)).snapshots[0]
    assert snapshot.micro_gradients is None and why in snapshot.omitted["micro_gradients"]


WRONG = ({"squares": [-1.0] * 5}, {"dots": [1.0]}, {"units": None}, {"squares": ["x"] * 5}, {"squares": [1e999] * 5})


@pytest.mark.parametrize("wrong", WRONG)
def test_micro_gradients_of_strangers_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        as_micro_gradients({"squares": [1.0] * 5, "dots": [1.0] * 5, "units": [1.0] * 5, **wrong})

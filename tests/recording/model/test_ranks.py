"""ranks.py, shards.py and what the Recorder does on several ranks, in real processes on gloo."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from loops import run_json
from places import HELPERS
from rank_files import rank_file
from rank_training import (
    RANKS,
    STEPS,
    Language,
    Normed,
    batch_of,
    ddp,
    fsdp,
    loss_of,
    plain,
    replicas,
    train,
    train_on_ranks,
)
from run_files import metadata
from safetensors.numpy import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import trajcheck
from trajcheck.errors import RecorderError
from trajcheck.recording.arguments import check_arguments, one_overhead
from trajcheck.recording.model import ranks
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Budget
from trajcheck.runs.trajectory import open_trajectory

OBJECTIVE = f"{HELPERS / 'rank_training.py'}:language"
WRAPPERS = {"ddp": ddp, "fsdp": fsdp}


def jobs(rank: int, folder: Path) -> None:
    """Everything that two ranks record for this file's tests."""
    ends: dict[str, Any] = {}
    for name, wrap in WRAPPERS.items():
        ends[f"{name} unrecorded"] = train(wrap, rank, None)
        ends[name] = train(wrap, rank, folder / name, windows=True)
        ends[f"{name} resumed"] = train(wrap, rank, folder / f"{name}-resumed", windows=True, resume_at=5)
    thin: dict[str, Any] = {"every": None, "schedule": Budget(bytes=12_000)}
    ends["thinned"] = train(ddp, rank, folder / "thinned", steps=24, micro=1, **thin)
    ends["dropped unrecorded"] = train(ddp, rank, None, make=Normed)
    ends["dropped"] = train(ddp, rank, folder / "dropped", make=Normed)
    train(replicas, rank, folder / "replicas", windows=True)
    train(ddp, rank, folder / "exported", steps=2, micro=1, objective=loss_of)
    train(ddp, rank, folder / "grown", start=5, steps=3)
    torch.save(edited(rank, folder / "edited"), folder / f"edited-{rank}.pt")
    torch.save(refusals(rank, folder), folder / f"refusals-{rank}.pt")
    torch.save(ends, folder / f"ends-{rank}.pt")


def edited(rank: int, path: Path) -> list[dict[str, Any]]:
    """Two forwards a step with a draw between them, and weights changed through .data after step 2, far from a record;
    the generator states and the buffer of each forward as this job saw them itself."""
    model = DistributedDataParallel(Normed(), broadcast_buffers=False)
    torch.manual_seed(200 + rank)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    seen: list[dict[str, Any]] = []
    with Recorder(path, model, optimizer, every=5, quiet=True) as recorder:
        for step in range(7):
            batch = batch_of(step, 0, rank)
            seen.append({"rng": [torch.get_rng_state()], "level": model.module.level.clone()})
            loss = loss_of(model, batch)
            torch.rand(3)
            seen[-1]["rng"].append(torch.get_rng_state())
            loss = loss + loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
            if step == 2:
                model.module.block.hidden.weight.data.mul_(0.9)
    return seen


def refusals(rank: int, folder: Path) -> list[str]:
    """What the Recorder says to what it cannot record, on this rank."""
    ranks.PATIENCE = 0.5
    said = []

    def ask(path: Path, model: Any, **options: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        try:
            Recorder(path, model, optimizer, every=1, quiet=True, **options).close()
            said.append("")
        except RecorderError as error:
            said.append(str(error))
        torch.distributed.barrier()

    ask(folder / "ddp", torch.nn.Linear(2, 2))
    ask(folder / f"own-{rank}", torch.nn.Linear(2, 2))
    ask(folder / "differ", torch.nn.Linear(2, 2 + rank))
    mesh = init_device_mesh("cpu", (RANKS,))
    for number, placement in enumerate((Shard(1), Shard(0), Replicate())):
        model = torch.nn.Linear(4, 4, bias=False)
        model.weight = torch.nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [placement]))
        ask(folder / f"placed-{number}", model)
    if rank:
        model = torch.nn.Linear(2, 2)
        with pytest.raises(RecorderError) as raised:
            Recorder(folder / "alone", model, torch.optim.SGD(model.parameters(), lr=0.1))
        said.append(str(raised.value))
    return said


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def killed(rank: int, folder: Path) -> None:
    """Rank 1 vanishes in step 3, after its backward pass."""

    def vanish(step: int) -> None:
        if rank and step == 3:
            wait_for(folder / "killed" / rank_file(2, 1, RANKS))
            os._exit(1)

    train(ddp, rank, folder / "killed", before_step=vanish)


def raising(rank: int, folder: Path) -> None:
    """Rank 1 raises in step 3, after its backward pass; rank 0 makes that step."""

    def fail(step: int) -> None:
        if rank and step == 3:
            wait_for(folder / "raised" / rank_file(2, 1, RANKS))  # nothing is written when such a process ends
            raise ValueError("of the training loop")

    train(ddp, rank, folder / "raised", before_step=fail)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("ranks")
    train(plain, None, folder / "one", windows=True)
    train(plain, None, folder / "grown", steps=5)
    train_on_ranks({jobs: True, killed: False, raising: False}, folder)
    return folder


NOISE = {"grad_true_sq", "batch_grad_sq", "noise_trace", "noise_scale", "coherence", "batch_cos", "growth"}

REPORTED: dict[str, Any] = {
    "refs": ["final", "init", "mean:3"],
    "objective": OBJECTIVE,
    "ref_gradients": True,
    "layers": True,
}


@pytest.fixture(scope="module")
def expected(recorded: Path) -> trajcheck.Report:
    """Of the run of one process."""
    return trajcheck.analyze(recorded / "one", **REPORTED, out=recorded / "report of one")


@pytest.fixture(scope="module")
def ends(recorded: Path) -> list[dict[str, Any]]:
    return [torch.load(recorded / f"ends-{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", ["ddp", "fsdp", "dropped"])
def test_training_is_the_same_to_the_bit(ends: list[dict[str, Any]], name: str) -> None:
    for end in ends:
        for tensor, value in end[f"{name} unrecorded"].items():
            assert torch.equal(value, end[name][tensor]), tensor


def test_the_replay_has_the_masks_and_the_buffers_of_each_rank(recorded: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(recorded / "dropped", objective=OBJECTIVE.replace("language", "dropped"), out=tmp_path)
    assert report.steps["replay_loss_error"].max() < 1e-12
    assert report.steps["replay_grad_error"].max() < 1e-12
    assert list(report.summary["replay"]["randomness"]) == ["recorded"]


@pytest.mark.parametrize("name", ["ddp", "fsdp", "ddp-resumed", "fsdp-resumed", "replicas"])
def test_the_report_is_that_of_one_process_with_the_joint_batches(
    recorded: Path, expected: trajcheck.Report, name: str, tmp_path: Path
) -> None:
    found = trajcheck.analyze(recorded / name, **REPORTED, out=tmp_path / name)
    for table in ("steps", "references", "layers"):
        one, other = getattr(expected, table), getattr(found, table)
        assert len(one) == len(other) > STEPS
        errors = [column for column in one if column.startswith("replay_")]
        noise = [column for column in other if column.removesuffix("_se") in NOISE]  # twice as many micro-batches
        one, other = (frame.drop(columns=[*errors, *noise], errors="ignore") for frame in (one, other))
        pd.testing.assert_frame_equal(one, other, rtol=1e-6, atol=1e-12)
        for column in errors:
            assert np.nanmax(getattr(found, table)[column]) < 1e-12
    assert found.references["window_num"].notna().all()


def test_what_each_rank_of_data_parallel_training_writes(recorded: Path) -> None:
    run = recorded / "ddp"
    assert run_json(run)["ranks"] == RANKS
    for step in range(STEPS):
        first, second = (load_file(run / rank_file(step, rank, RANKS)) for rank in range(RANKS))
        kinds = {name.partition("/")[0] for name in second}
        assert kinds == {"batch"}
        assert {"param", "grad", "batch"} <= {name.partition("/")[0] for name in first}
        assert not np.array_equal(first["batch/0"], second["batch/0"])
    losses = [metadata(run / rank_file(2, rank, RANKS))["loss"] for rank in range(RANKS)]
    assert open_trajectory(run).snapshots[2].loss == pytest.approx(sum(losses) / RANKS, rel=1e-15)
    assert open_trajectory(run).snapshots[2].micro_weights == (0.25,) * 4
    said = [metadata(run / rank_file(0, rank, RANKS))["replicated"] for rank in range(RANKS)]
    assert said[0] == pytest.approx(said[1], rel=1e-12)


@pytest.mark.parametrize("rank", range(RANKS))
def test_each_rank_has_its_forwards_and_buffers_and_the_first_says_what_nobody_saw(rank: int, recorded: Path) -> None:
    seen = torch.load(recorded / f"edited-{rank}.pt")
    for step in (0, 5):
        file = recorded / "edited" / rank_file(step, rank, RANKS)
        tensors, said = load_file(file), metadata(file)
        assert said["forwards"] == [2]
        assert np.array_equal(tensors["rng/cpu"], torch.stack(seen[step]["rng"]).numpy())
        assert tensors["buffer/level"] == seen[step]["level"].numpy()
        told = {"times": 1, "first": 3, "last": 3, "tensors": ["block.hidden.weight"], "changed": 1}
        assert said.get("unseen") == (told if step == 5 and rank == 0 else None)


def test_where_the_pieces_of_sharded_training_belong(recorded: Path) -> None:
    meta = [metadata(recorded / "fsdp" / rank_file(1, rank, RANKS)) for rank in range(RANKS)]
    assert meta[0]["offset"]["grad/embed.weight"] == [0, 0]
    assert meta[1]["offset"]["grad/embed.weight"] == [4, 0]
    assert meta[1]["shape"]["param/embed.weight"] == [7, 5]
    assert meta[1]["offset"]["param/block.hidden.bias"] == [3]
    assert "replicated" not in meta[0]
    held = load_file(recorded / "fsdp" / rank_file(0, 1, RANKS))
    assert held["param/embed.weight"].shape == (3, 5)
    assert held["param/block.shift"].shape == (2,)
    assert not {"param/out.weight", "grad/block.shift"} & held.keys()
    assert run_json(recorded / "fsdp")["tied"] == {"out.weight": "embed.weight"}


def test_a_budget_deletes_the_same_steps_on_all_ranks(recorded: Path) -> None:
    run = recorded / "thinned"
    steps = [
        {int(path.name[5:14]) for path in run.glob(f"step-*-of-rank-{rank:05d}-*.safetensors")} for rank in range(RANKS)
    ]
    assert steps[0] == steps[1] == set(open_trajectory(run).steps)
    assert {0, 1, 24} < steps[0] and len(steps[0]) < 20
    assert not open_trajectory(run).left_out


def test_the_exported_objective_replays_the_run(recorded: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(recorded / "exported", objective="run", out=tmp_path)
    assert report.steps["replay_loss_error"].max() < 1e-12
    assert "gives its reference loss at step 0" in json.dumps(report.summary)


def test_a_run_of_one_process_goes_on_with_two_ranks(recorded: Path) -> None:
    run = recorded / "grown"
    trajectory = open_trajectory(run)
    assert trajectory.steps == list(range(9))
    assert recorded_steps_of_one_process(run) == [0, 1, 2, 3, 4]
    assert [path.name for path in (run / "superseded").iterdir()] == ["step-000000005.safetensors"]
    assert [snapshot.tau for snapshot in trajectory.snapshots] == [(0.5 * step,) for step in range(9)]
    assert all(set(snapshot.frozen) == {"block.shift"} for snapshot in trajectory.snapshots)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_run_of_two_ranks_goes_on_with_one_process(recorded: Path, name: str, tmp_path: Path) -> None:
    run = shutil.copytree(recorded / name, tmp_path / "run")
    train(plain, None, run, start=6, steps=1)
    trajectory = open_trajectory(run)
    assert trajectory.steps == list(range(8))
    assert recorded_steps_of_one_process(run) == [6, 7]
    assert len(list((run / "superseded").iterdir())) == 3 * RANKS
    assert [snapshot.tau for snapshot in trajectory.snapshots] == [(0.5 * step,) for step in range(8)]
    trajcheck.analyze(run, objective=OBJECTIVE, out=tmp_path / "report")


def recorded_steps_of_one_process(run: Path) -> list[int]:
    return sorted(int(path.name[5:14]) for path in run.glob("step-*.safetensors") if "rank" not in path.name)


def test_what_cannot_be_recorded_is_refused_on_all_ranks(recorded: Path) -> None:
    first, second = (torch.load(recorded / f"refusals-{rank}.pt") for rank in range(RANKS))
    assert "already holds a run" in first[0]
    assert second[0] == f"rank 0: {first[0]}"
    assert first[1] == ""
    assert "rank 1 records into" in second[1] and "expected one folder for all ranks" in second[1]
    assert first[2] == "" and "Parameter 'weight' there: [2, 2]" in second[2]
    for said in (first, second):
        assert "'weight' is placed as (Shard(dim=1),); expected Shard(0)" in said[3]
        assert said[4:6] == ["", ""]
    assert "has waited 0 s for rank 0" in second[6]
    for number, rows in ((1, [2, 2]), (2, [4, 0])):
        files = [load_file(recorded / f"placed-{number}" / rank_file(0, rank, RANKS)) for rank in range(RANKS)]
        assert [len(tensors.get("param/weight", ())) for tensors in files] == rows
        assert open_trajectory(recorded / f"placed-{number}").shapes == {"weight": (4, 4)}


def test_flattened_parameters_are_refused() -> None:
    class FullyShardedDataParallel(torch.nn.Module):
        pass

    model = torch.nn.Sequential(Language(), FullyShardedDataParallel())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RecorderError, match="fully_shard, which keeps them"):
        check_arguments(model, Optimizers(optimizer), 0, None, None, None)


def test_there_is_no_limit_on_time_that_ranks_would_keep_each_for_itself() -> None:
    assert one_overhead("auto", Budget(), 1) is not None
    assert one_overhead("auto", Budget(), RANKS) is None
    assert one_overhead(None, Budget(), RANKS) is None
    with pytest.raises(RecorderError, match=r"overhead=0.05 on 2 ranks: .* all must record the same steps"):
        one_overhead(0.05, Budget(), RANKS)


def test_a_rank_that_is_killed_leaves_a_run_up_to_there(recorded: Path, tmp_path: Path) -> None:
    run = recorded / "killed"
    trajectory = open_trajectory(run)
    assert trajectory.steps == [0, 1, 2]
    trajcheck.analyze(run, objective=OBJECTIVE, out=tmp_path / "report")


def test_a_rank_that_raises_leaves_a_run_up_to_there(recorded: Path) -> None:
    assert open_trajectory(recorded / "raised").steps == [0, 1, 2]


def test_ranks_that_would_record_other_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Store(dict[str, str]):
        set = dict.__setitem__
        get = dict.__getitem__  # type: ignore[assignment]

        def wait(self, keys: list[str], patience: object) -> None:
            assert all(key in self for key in keys)

    store = Store()
    monkeypatch.setattr(ranks, "_store", lambda: store)
    monkeypatch.setattr(ranks, "_key", lambda: "key")
    with ranks.Ranks(0, 2).agreed("run", {"schedule": "Every(k=1)"}) as said:
        said["id"] = "me"
    with ranks.Ranks(1, 2).agreed("run", {"schedule": "Every(k=1)"}) as heard:
        assert heard["id"] == "me"
    with (
        pytest.raises(RecorderError, match=r"rank 1 records with schedule Every\(k=2\), and rank 0 with Every\(k=1\)"),
        ranks.Ranks(1, 2).agreed("run", {"schedule": "Every(k=2)"}),
    ):
        pass

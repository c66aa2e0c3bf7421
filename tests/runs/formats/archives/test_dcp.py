"""archives/dcp: folders of torch.distributed.checkpoint, written by torch itself on two ranks and on one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from forked_ranks import on_ranks
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

import trajcheck
from trajcheck.errors import RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.runs.trajectory import open_trajectory

STEPS = [2, 10, 100]  # by their names, 10 and 100 come before 2

SHARDED = """
import json, os
import torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(90, 7), nn.BatchNorm1d(7), nn.Linear(7, 90, bias=False)
        self.head.weight = self.embed.weight
        self.still = nn.Linear(3, 3).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(5, 3))

    def forward(self, tokens):
        return self.head(self.norm(self.embed(tokens))) * self.scale.sum() + self.still(torch.ones(3)).sum()

dist.init_process_group("gloo")
torch.manual_seed(0)
model = Net()
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
points = {}
for step in range(1, 101):
    if step in (2, 10, 100):
        flatten = StateDictOptions(flatten_optimizer_state_dict=step == 10)
        weights, state = get_state_dict(model, optimizer, options=flatten)
        dcp.save({"model": weights, "optim": state, "step": step}, checkpoint_id=f"run/step-{step}")
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        points[step] = {n: p.full_tensor().double().tolist() for n, p in named.items()}
    if step < 13:
        loss = nn.functional.cross_entropy(model(torch.randint(90, (8,))), torch.randint(90, (8,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
if dist.get_rank() == 0:
    json.dump(points, open("points.json", "w"))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dcp")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        on_ranks(SHARDED, 2)
    return folder


@pytest.fixture
def run(sharded: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    return shutil.copytree(sharded / "run", tmp_path / "run")


def test_two_ranks_of_fsdp(sharded: Path, tmp_path: Path) -> None:
    """Every number of the trained parameters, and norms and distances; tied once, frozen and buffers apart."""
    live = {int(step): point for step, point in json.loads((sharded / "points.json").read_text()).items()}
    trajectory = open_trajectory(sharded / "run")
    assert trajectory.steps == STEPS and set(trajectory.shapes) == {"embed.weight", "norm.weight", "norm.bias", "scale"}
    assert trajectory.info.optimizer == "AdamW" and trajectory.settings.decoupled
    with ExtentReader() as reader:
        for snapshot in trajectory.snapshots:
            for name in trajectory.shapes:
                stored = read_tensor(reader, snapshot.parameters[name]).double()
                assert torch.equal(stored, torch.tensor(live[snapshot.step][name], dtype=torch.float64))
            assert snapshot.state.keys() >= {"exp_avg/embed.weight", "exp_avg_sq/scale"} or snapshot.step == 2
            assert set(snapshot.frozen) == {"still.weight", "still.bias"}
            assert set(snapshot.buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    flat = {s: np.concatenate([np.ravel(p[name]) for name in sorted(p)]) for s, p in live.items()}
    report = trajcheck.analyze(sharded / "run", out=tmp_path / "out")
    np.testing.assert_allclose(report.steps["param_norm"], [np.linalg.norm(flat[s]) for s in STEPS], rtol=1e-12)
    said = "at step 100, as the checkpoints say it, the optimizer counts 12 updates"
    assert any(said in note for note in trajectory.info.notes)
    distances = [np.linalg.norm(flat[step] - flat[100]) for step in STEPS]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-12)


def test_an_incomplete_checkpoint(run: Path) -> None:
    (run / "step-10" / ".metadata").unlink()
    with pytest.raises(StepFileError, match=r"no \.metadata, which is written last"):
        open_trajectory(run)
    assert open_trajectory(run, skip_bad=True).steps == [2, 100]


def test_a_file_of_a_rank_is_gone(run: Path) -> None:
    (run / "step-10" / "__1_0.distcp").unlink()
    with pytest.raises(StepFileError, match=r"__1_0\.distcp, which its \.metadata names, is not there"):
        open_trajectory(run)


def test_two_folders_of_one_step(run: Path) -> None:
    shutil.copytree(run / "step-10", run / "last")
    with pytest.raises(RunError, match="would both be step 10"):
        open_trajectory(run)


def _traversal(found: Metadata) -> None:
    for info in found.storage_data.values():
        info.relative_path = "../step-2/" + info.relative_path


def _overlap(found: Metadata) -> None:
    chunks: Any = found.state_dict_metadata["model.embed.weight"]
    index = MetadataIndex("model.embed.weight", torch.Size([44, 0]))
    found.storage_data[index] = found.storage_data.pop(MetadataIndex("model.embed.weight", chunks.chunks[1].offsets))
    chunks.chunks[1] = type(chunks.chunks[1])(torch.Size([44, 0]), chunks.chunks[1].sizes)


def _outside(found: Metadata) -> None:
    chunks: Any = found.state_dict_metadata["model.embed.weight"]
    chunks.chunks[1] = type(chunks.chunks[1])(torch.Size([45, 0]), torch.Size([1000, 7]))


def _elsewhere(found: Metadata) -> None:
    index = next(index for index in found.storage_data if index.fqn == "model.scale")
    found.storage_data[index].offset += 64


def _compressed(found: Metadata) -> None:
    for info in found.storage_data.values():
        info.transform_descriptors = ["zstd"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_traversal, "expected the name of a file beside it"),
        (_overlap, "is in two chunks"),
        (_outside, "does not lie in a tensor of shape"),
        (_elsewhere, "does not begin as a file of torch.save does"),
        (_compressed, "compressed or encrypted"),
    ],
)
def test_metadata_that_is_wrong(run: Path, change: Callable[[Metadata], None], message: str) -> None:
    path = run / "step-10" / ".metadata"
    found = pickle.loads(path.read_bytes())
    change(found)
    path.write_bytes(pickle.dumps(found))
    with pytest.raises(StepFileError, match=message):
        open_trajectory(run)


def test_metadata_that_would_run_something(run: Path) -> None:
    (run / "step-10" / ".metadata").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    with pytest.raises(StepFileError, match=r"names os\.system"):
        open_trajectory(run)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_one_process_and_no_optimizer(tmp_path: Path) -> None:
    """Names at the top, as those save who have no table around them."""
    for step in (1, 2):
        tensors = {"a.weight": torch.arange(12.0).reshape(3, 4) * step, "b": torch.ones(3) * step}
        dcp.save(tensors, checkpoint_id=tmp_path / "run" / f"iter_{step:07d}", no_dist=True)
    trajectory = open_trajectory(tmp_path / "run")
    assert trajectory.steps == [1, 2] and set(trajectory.shapes) == {"a.weight", "b"}
    with ExtentReader() as reader:
        found = read_tensor(reader, trajectory.snapshots[1].parameters["a.weight"])
    assert torch.equal(found, torch.arange(12.0).reshape(3, 4) * 2)

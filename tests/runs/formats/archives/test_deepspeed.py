"""archives/deepspeed: folders as DeepSpeed lays them out (0.19), of ZeRO stages 0 to 3 on several ranks."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import trajcheck
from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.runs.trajectory import open_trajectory

STEPS = (2, 10)  # by their names, 10 comes before 2
RANKS = 3
#: Two parameter groups; sizes that no number of ranks divides.
GROUPS: list[dict[str, tuple[int, ...]]] = [
    {"embed.weight": (11, 3), "scale": (5, 3)},
    {"norm.weight": (7,), "norm.bias": (7,), "one": ()},
]
FROZEN = {"still.weight": (3, 2)}


class ZeroStageEnum(int, Enum):
    """A class of DeepSpeed's, by which the stage is stored."""

    disabled, optimizer_states, gradients, weights = range(4)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """While files are written; nothing of it is looked up in reading."""
    ZeroStageEnum.__module__ = "deepspeed.runtime.zero.config"
    module = ModuleType(ZeroStageEnum.__module__)
    module.ZeroStageEnum = ZeroStageEnum  # type: ignore[attr-defined]
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def point(step: int) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(step)
    shapes = {name: shape for group in GROUPS for name, shape in group.items()}
    return {name: torch.randn(shape, generator=stream) for name, shape in shapes.items()}


def flat_pieces(x: dict[str, Tensor], stage: int) -> list[list[Tensor]]:
    """By rank the vectors of the groups; of stage 3 in two sub-groups."""
    if stage == 3:
        pieces: list[list[Tensor]] = [[] for _ in range(RANKS)]
        for each in x.values():
            share = math.ceil(each.numel() / RANKS)
            padded = torch.cat([each.flatten(), torch.zeros(share * RANKS - each.numel())])
            for rank in range(RANKS):
                pieces[rank].append(padded[rank * share : (rank + 1) * share])
        return [[torch.cat(held[:2]), torch.cat(held[2:])] for held in pieces]
    ranks: list[list[Tensor]] = [[] for _ in range(RANKS)]
    for group in GROUPS:
        flat = torch.cat([x[name].flatten() for name in group])
        align = 2 * RANKS
        flat = torch.cat([flat, torch.zeros(-len(flat) % align)])
        for rank, piece in enumerate(flat.chunk(RANKS)):
            ranks[rank].append(piece.clone())
    return ranks


def write(folder: Path, step: int, stage: int, inside: int | None = None, foreign: int = 0) -> None:
    """`foreign`: so many elements more in the first vector of rank 1."""
    folder = folder / f"global_step{step}"
    folder.mkdir(parents=True)
    x = point(step)
    buffers = {"norm.running_mean": torch.randn(7), "norm.num_batches_tracked": torch.tensor(step)}
    frozen = {name: torch.ones(shape) for name, shape in FROZEN.items()}
    module: dict[str, Any] = {**{n: t.bfloat16() for n, t in x.items()}, **frozen, **buffers}
    if stage == 0:
        module |= x
    if stage == 3:
        module = {**{name: torch.empty(0) for name in (*x, *frozen)}, **buffers}
    module["head.weight"] = module["embed.weight"]
    fragments: list[dict[str, Tensor]] = [frozen] * RANKS
    if stage == 3:
        fragments = [{n: t.flatten()[2 * rank : 2 * rank + 2].clone() for n, t in frozen.items()} for rank in range(3)]
    for rank in range(RANKS if stage == 3 else 1):
        state = {
            "module": OrderedDict(module),
            "buffer_names": list(buffers),
            "param_shapes": [OrderedDict((n, torch.Size(s)) for n, s in group.items()) for group in GROUPS],
            # before stage 2 the module alone has them
            "frozen_param_shapes": OrderedDict((n, torch.Size(s)) for n, s in FROZEN.items()) if stage > 1 else None,
            "frozen_param_fragments": OrderedDict(fragments[rank]) if stage > 1 else None,
            "shared_params": {"head.weight": "embed.weight"},
            "global_steps": step if inside is None else inside,
            "ds_version": "0.19.8",
            "optimizer": None,
        }
        name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
        torch.save(state, folder / name)
    if stage:
        key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
        usual = {"betas": (0.9, 0.99), "amsgrad": False, "decoupled_weight_decay": True, "lr": 0.1, "params": [0]}
        groups = [{"weight_decay": decay, **usual} for decay in (0.1, 0.0)]
        for rank, pieces in enumerate(flat_pieces(x, stage)):
            if rank == 1:
                pieces[0] = torch.cat([pieces[0], torch.zeros(foreign)])
            optimizer = {
                "zero_stage": ZeroStageEnum(stage),
                "partition_count": RANKS if stage == 3 else [RANKS, RANKS],
                key: pieces,
                ("optimizer_state_dict" if stage == 3 else "base_optimizer_state"): {
                    "param_groups": groups,
                    "state": {
                        place: {"step": torch.tensor(4), "exp_avg": 2 * each} for place, each in enumerate(pieces)
                    },
                },
            }
            name = f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            torch.save({"optimizer_state_dict": optimizer, "ds_version": "0.19.8"}, folder / name)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_float32_weights_of_each_stage(stage: int, tmp_path: Path) -> None:
    for step in STEPS:
        write(tmp_path / "run", step, stage)
    trajectory = open_trajectory(tmp_path / "run")
    assert trajectory.steps == list(STEPS) and set(trajectory.shapes) == set(point(2))
    with ExtentReader() as reader:
        for snapshot in trajectory.snapshots:
            expected = point(snapshot.step)
            for name in trajectory.shapes:
                assert torch.equal(read_tensor(reader, snapshot.parameters[name]), expected[name])
                if stage:
                    assert torch.equal(read_tensor(reader, snapshot.state[f"exp_avg/{name}"]), 2 * expected[name])
            assert torch.equal(read_tensor(reader, snapshot.frozen["still.weight"]), torch.ones(3, 2))
            assert set(snapshot.buffers) == {"norm.running_mean", "norm.num_batches_tracked"}
    assert dict(trajectory.info.tied) == {"head.weight": "embed.weight"}
    if stage:
        assert trajectory.info.optimizer == "AdamW" and trajectory.settings.decoupled
        assert [group["weight_decay"] for group in trajectory.info.groups] == [0.1, 0.0]
        assert trajectory.info.group_of["scale"] == 0 and trajectory.info.group_of["norm.bias"] == 1
    report = trajcheck.analyze(tmp_path / "run", out=tmp_path / "out")
    flat = [np.concatenate([t.numpy().ravel() for t in point(step).values()]).astype(float) for step in STEPS]
    np.testing.assert_allclose(report.steps["param_norm"], [float(np.linalg.norm(each)) for each in flat], rtol=1e-12)
    np.testing.assert_allclose(
        report.references["ref_dist"], [float(np.linalg.norm(flat[0] - flat[1])), 0.0], rtol=1e-12
    )


def test_the_step_is_that_inside(tmp_path: Path) -> None:
    write(tmp_path / "run", 2, 2)
    write(tmp_path / "run", 10, 2, inside=12)
    assert open_trajectory(tmp_path / "run").steps == [2, 12]


def test_a_shard_is_gone(tmp_path: Path) -> None:
    for step in STEPS:
        write(tmp_path / "run", step, 2)
    (tmp_path / "run" / "global_step2" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(StepFileError, match="no optimizer states of rank 1 of 3"):
        open_trajectory(tmp_path / "run")


def test_a_shard_of_another_checkpoint(tmp_path: Path) -> None:
    """Vectors that the shapes do not fill."""
    write(tmp_path / "run", 2, 2, foreign=40)
    with pytest.raises(StepFileError, match="elements where the shapes make"):
        open_trajectory(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mp_rank_01_model_states.pt", "model-parallel training, which is not read"),
        ("layer_03-model_00-model_states.pt", "pipeline-parallel training, which is not read"),
    ],
)
def test_other_parallel_trainings_are_refused(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / "run", 2, 1)
    torch.save({}, tmp_path / "run" / "global_step2" / name)
    with pytest.raises(StepFileError, match=message):
        open_trajectory(tmp_path / "run")

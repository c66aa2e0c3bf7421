"""Trainings of a small language model by two ranks, or by one process on the joint batches, to be recorded.

Run in processes of their own by `train_on_ranks`; as an objective file, `rank_training.py:language`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from trajcheck.recording.recorder import Recorder

RANKS = 2
STEPS, MICRO, SIZE = 8, 2, 3  # micro-batches a step and rank, sequences each


class Block(nn.Module):
    """tanh of a linear map, with dropout, and a frozen shift."""

    shift: nn.Parameter

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 5)
        self.drop = nn.Dropout(dropout)
        self.shift = nn.Parameter(torch.randn(5), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.drop(self.hidden(x))) + self.shift


class Language(nn.Module):
    """Odd sizes, an embedding that is tied to the output, a frozen parameter; float64."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 5)
        self.block = Block(dropout)
        self.out = nn.Linear(5, 7, bias=False)
        self.out.weight = self.embed.weight
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.out(self.block(self.embed(tokens)))
        return logits


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def language() -> tuple[nn.Module, Callable[..., Tensor]]:
    return Language(), loss_of


def dropped() -> tuple[nn.Module, Callable[..., Tensor]]:
    return Normed(), loss_of


class Normed(Language):
    """With dropout and a buffer that the loss depends on and every forward changes."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__(0.5)
        self.register_buffer("level", torch.ones((), dtype=torch.float64))

    def forward(self, tokens: Tensor) -> Tensor:
        logits = super().forward(tokens) * self.level.clone()
        with torch.no_grad():
            self.level += 0.01 * tokens.double().mean()
        return logits


def batch_of(step: int, micro: int, rank: int | None) -> Tensor:
    """That of a rank, or the joint one."""
    stream = torch.Generator().manual_seed(100 * step + micro)
    tokens = torch.randint(7, (RANKS * SIZE, 4), generator=stream)
    return tokens if rank is None else tokens[rank * SIZE : (rank + 1) * SIZE]


def plain(model: nn.Module) -> nn.Module:
    return model


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp(model: Any) -> nn.Module:
    fully_shard(model.block)
    fully_shard(model)
    return model


def replicas(model: Any) -> nn.Module:
    """Two replicas of shards over one rank."""
    fully_shard(model, mesh=init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicas", "shards")))
    return model


def without_sync(model: Any, last: bool) -> Any:
    """Accumulate without averaging over the ranks, until the last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
    return contextlib.nullcontext()


def train(
    wrap: Callable[[nn.Module], nn.Module],
    rank: int | None,
    path: Path | None,
    *,
    make: Callable[[], nn.Module] = Language,
    steps: int = STEPS,
    micro: int = MICRO,
    start: int = 0,
    resume_at: int | None = None,
    before_step: Callable[[int], None] = lambda step: None,
    **options: Any,
) -> dict[str, Tensor]:
    """The weights at the end; with `path` recorded. `resume_at`: closed there, and gone on with by a second job."""
    model = wrap(make())
    torch.manual_seed(100 + (rank or 0))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, momentum=0.9)

    def new(start: int) -> Recorder | None:
        settings = {"every": 1, "quiet": True, "strict": True, **options}
        return None if path is None else Recorder(path, model, optimizer, start_step=start, **settings)

    recorder = new(start)
    for step in range(start, start + steps):
        if step == resume_at and recorder is not None:
            recorder.close()
            recorder = new(step)
        for i in range(micro):
            batch = batch_of(step, i, rank)
            with without_sync(model, i == micro - 1):
                loss = loss_of(model, batch)
                (loss / micro).backward()
            if recorder is not None:
                recorder.observe(batch, loss, weight=1 / micro)
        before_step(step)
        if recorder is not None:
            recorder.clip_grad_norm_(0.4)
        else:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.4)
        optimizer.step()
        optimizer.zero_grad()
    if recorder is not None:
        recorder.close()
    tensors = {name.removeprefix("module."): tensor.detach() for name, tensor in model.named_parameters()}
    return {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in tensors.items()}


def train_on_ranks(jobs: Mapping[Callable[[int, Path], None], bool], folder: Path) -> None:
    """job(rank, folder) of one job after the other, each in two processes on gloo; of a job it is said whether all its
    ranks end well. One process imports torch for all of them, and forks them where libraries bear that."""
    importer = multiprocessing.get_context("spawn").Process(target=_all_jobs, args=(jobs, folder))
    importer.start()
    importer.join()
    assert importer.exitcode == 0


def _all_jobs(jobs: Mapping[Callable[[int, Path], None], bool], folder: Path) -> None:
    make = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork").Process  # type: ignore[attr-defined]
    for job, ends_well in jobs.items():
        ranks = [make(target=_rank, args=(job, rank, folder), daemon=True) for rank in range(RANKS)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(300)  # one that is still alive has no exit code, and ends with its parent
        ended_well = [process.exitcode for process in ranks] == [0] * RANKS
        assert ended_well == ends_well, job.__name__


def _rank(job: Callable[[int, Path], None], rank: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous-{job.__name__}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=RANKS)
    job(rank, folder)
    dist.barrier()
    dist.destroy_process_group()

"""Two ranks of one training, sharded by FSDP2 over gloo with the tensors on the device, recorded as one run."""

from __future__ import annotations

import math
import multiprocessing
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from benchmarks.table import Row
from trajcheck import Recorder
from trajcheck.replay.vector_reader import Buffers, VectorReader
from trajcheck.runs.trajectory import open_trajectory

RANKS, STEPS = 2, 3
TITLE = "two ranks of FSDP2 on gloo: tensors that are not the plain copy"


def two_ranks(folder: Path, device: torch.device) -> list[Row]:
    """Where gloo cannot do it with tensors of the device, the row says how it failed, and is no fault."""
    # A process that has used CUDA cannot be forked; one that has not need not import torch again.
    make = multiprocessing.get_context("spawn" if device.type == "cuda" else "fork").Process  # type: ignore[attr-defined]
    ranks = [make(target=_rank, args=(rank, folder, str(device)), daemon=True) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    said = sorted(folder.glob("impossible-*"))
    if said:
        return [Row(TITLE, math.nan, note=f"not possible here: {said[0].read_text()}")]
    if [process.exitcode for process in ranks] != [0] * RANKS:
        raise RuntimeError(f"the ranks ended with {[process.exitcode for process in ranks]}")
    different = 0
    reader = VectorReader(Buffers(torch.device("cpu")))
    for step, snapshot in enumerate(open_trajectory(folder / "sharded").snapshots[:STEPS]):
        parts = {"param": snapshot.parameters, "grad": snapshot.gradients}
        tensors = {f"{kind}/{name}": reader.tensor(each) for kind, of in parts.items() for name, each in of.items()}
        known = torch.load(folder / f"plain-{step}.pt", weights_only=True)
        different += sum(not torch.equal(tensors[name], tensor) for name, tensor in known.items())
        different += len(known) != 2 * len(list(_model().parameters()))
    return [Row(TITLE, float(different), target=0.0)]


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def _rank(rank: int, folder: Path, device: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    try:
        try:
            model = _model().to(device)
            fully_shard(model, mesh=init_device_mesh(torch.device(device).type, (RANKS,)))
            model(torch.zeros(1, 5, device=device)).sum().backward()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            (folder / f"impossible-{rank}").write_text(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return
        model.zero_grad()
        _train(rank, folder, model, device)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _train(rank: int, folder: Path, model: nn.Module, device: str) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Recorder(folder / "sharded", model, optimizer, every=1, quiet=True, strict=True) as recorder:
        for step in range(STEPS):
            stream = torch.Generator().manual_seed(10 * step + rank)
            batch = torch.randn(6, 5, generator=stream).to(device), torch.arange(6, device=device) % 3
            loss = F.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            recorder.observe(batch, loss)
            whole = {f"param/{name}": _whole(p) for name, p in model.named_parameters()}
            whole |= {f"grad/{name}": _whole(p.grad) for name, p in model.named_parameters()}
            if rank == 0:
                torch.save(whole, folder / f"plain-{step}.pt")
            optimizer.step()
            optimizer.zero_grad()


def _whole(sharded: Any) -> torch.Tensor:
    whole: torch.Tensor = sharded.full_tensor().detach().cpu()
    return whole

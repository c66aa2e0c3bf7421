"""The replay on a device against the CPU's: losses, inner products, eigenvalues; and draws that are the training's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.gpu.device import name_of
from benchmarks.gpu.sizes import Sizes
from benchmarks.table import Row
from trajcheck import Recorder
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.replay.gpu_reducer import DeviceReducer
from trajcheck.replay.host_reducer import HostReducer
from trajcheck.replay.reducer import by_tensor, fetch
from trajcheck.runs.references import resolve_references
from trajcheck.scalars.values import RowScalars

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
#: A quantity may differ by so much of the largest that it is along the run: in double, and in float32, whose products
#: are summed in another order on every device.
IN_DOUBLE, IN_SINGLE = 1e-9, 1e-4
#: Iterations of another order end elsewhere within their tolerance.
ITERATIVE = (
    *("lambda_max_residual", "lambda_min_residual", "lambda_max_error", "lambda_min_error"),
    *("hessian_products", "hessian_asymmetry"),
)

Rows = Sequence[RowScalars]


def replayed(run: Path, objective: str, device: torch.device, dtype: str, most: int, **more: Any) -> list[RowScalars]:
    """The first rows of a run, on its own samples, towards its last iterate."""
    options = Options(("final",), objective, device=str(device), replay_dtype=dtype, **more)
    analysis = MeasuredRun(run, options, quiet=True)
    references = resolve_references(("final",), analysis.trajectory, run.parent)
    found = analysis.prepare_replay(references).rows()
    try:
        return [each["own"][0] for each in islice(found, most)]
    finally:
        found.close()


def largest_difference(here: Rows, there: Rows) -> tuple[float, str]:
    """Over all quantities, in units of the largest that each is along the run, and which quantity that is; inf where
    one has a value and the other none."""
    worst = 0.0, "nothing differs"
    for place in range(len(here[0].all)):
        for name in (field.name for field in fields(here[0].all[place])):
            if name in ITERATIVE:
                continue
            pairs = [
                (getattr(a.all[place], name), getattr(b.all[place], name)) for a, b in zip(here, there, strict=True)
            ]
            if any((a is None) != (b is None) for a, b in pairs):
                return math.inf, f"{name} is there on one device alone"
            known = [(float(a), float(b)) for a, b in pairs if a is not None]
            scale = max((abs(a) for a, _ in known), default=0.0)
            error = max((abs(a - b) for a, b in known), default=0.0) / (scale or 1.0)
            worst = max(worst, (error, name), key=lambda each: each[0])
    return worst


def sample_runs(device: torch.device, sizes: Sizes) -> list[Row]:
    """Runs without draws: those of a GPU are others than a CPU's."""
    rows = []
    for name in ("digits-sgd-seed0", "breast-cancer-gd"):
        for dtype, limit in (("float64", IN_DOUBLE), ("float32", IN_SINGLE)):
            run, curved = SAMPLES / name, {"curvature": 50, "curvature_tolerance": 1e-12} if dtype == "float64" else {}
            here, there, again = (
                replayed(run, "run", place, dtype, sizes.rows, **curved)
                for place in (torch.device("cpu"), device, device)
            )
            error, what = largest_difference(here, there)
            title = f"{name}, {dtype}: {name_of(device)} against the CPU"
            rows.append(Row(title, error, target=limit, note=f"{len(here)} rows; the largest in {what}"))
            error, what = largest_difference(there, again)
            rows.append(Row(f"{name}, {dtype}: the same replay twice", error, target=0.0, note=what))
    return rows


class Dropped(nn.Module):
    """A small network with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 32), nn.Dropout(0.4), nn.GELU(), nn.Linear(32, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


def dropped_loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def dropped() -> tuple[nn.Module, Any]:
    """The objective."""
    return Dropped(), dropped_loss


def draws(folder: Path, device: torch.device, sizes: Sizes) -> list[Row]:
    """A training with dropout on the device: its masks come again, from the generator states that were recorded."""
    torch.manual_seed(0)
    model = Dropped().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with Recorder(folder / "dropped", model, optimizer, every=1, quiet=True, strict=True) as recorder:
        for _ in range(sizes.training):
            batch = torch.randn(16, 24, device=device), torch.randint(5, (16,), device=device)
            loss = dropped_loss(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
    objective = f"{__file__}:dropped"
    found = replayed(folder / "dropped", objective, device, "float32", sizes.training)
    seen = [loss.item() for loss in losses]
    errors = [abs(float(row.own.loss or math.nan) - loss) / loss for row, loss in zip(found, seen, strict=False)]
    return [Row("dropout: replayed loss against the observed one", max(errors), target=1e-5)]


def reductions(device: torch.device, sizes: Sizes) -> list[Row]:
    """Inner products on the device against the host pass, in units of their factors' norms."""
    torch.manual_seed(0)
    shapes = {"a": (3, sizes.small.width, 50), "b": (7,), "c": (20_000,)}
    vectors = {
        kind: {name: torch.randn(shape, device=device) for name, shape in shapes.items()} for kind in ("x", "gradient")
    }
    there = {kind: {name: tensor.cpu() for name, tensor in vector.items()} for kind, vector in vectors.items()}
    point = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
    with DeviceReducer(shapes, device, chunk=1 << 15) as ours, HostReducer(shapes) as host:
        asked = (["grad_sq"], ["grad_dot_ref", "ref_sq"])
        found = ours.reduce(vectors, {0: {"reference": point}}, *asked)
        known = host.reduce(there, {0: {"reference": {name: each.cpu() for name, each in point.items()}}}, *asked)
        nothing = ours.reduce(vectors, {}, [], [])
        (one, empty), (other,) = fetch([found.values, nothing.values]), fetch([known.values])
        sums, expected = by_tensor(ours, one).sum(1), by_tensor(host, other).sum(1)
    assert not empty.size and found.labels == known.labels
    errors = abs(sums - expected) / abs(expected).max()  # two of the three are squares of the factors' norms
    return [Row("inner products on the device against the host's", float(errors.max()), target=1e-12)]

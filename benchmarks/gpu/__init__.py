"""One command for a fresh machine with a CUDA device: is everything right there, and what is it worth."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.gpu import correctness, ratios, recording
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.device import name_of
from benchmarks.gpu.sizes import CPU, GPU, Sizes
from benchmarks.gpu.two_ranks import two_ranks
from benchmarks.table import Row, markdown, show
from trajcheck.objective.devices import resolve_device


def measured(device: torch.device, minutes: float, sizes: Sizes, folder: Path) -> list[Row]:
    """Correctness first, then ratios, the most wanted first."""
    budget = Budget(minutes, sizes.rounds)
    budget.take("sample runs", partial(correctness.sample_runs, device, sizes))
    budget.take("inner products", partial(correctness.reductions, device, sizes))
    budget.take("recorder", partial(recording.recorded, folder / "recorded", device, sizes))
    budget.take("windows", partial(recording.windows, folder / "windows", device, sizes))
    budget.take("dropout", partial(correctness.draws, folder, device, sizes))
    budget.take("two ranks", partial(two_ranks, folder, device))
    for name, make in ratios.cases(folder, device, sizes).items():
        budget.take(f"replay, {name}", partial(ratios.replay, budget, make))
    budget.take("recorder's share", partial(ratios.recorder, budget, folder, device, sizes))
    budget.take("reductions", partial(ratios.reductions, budget, device, sizes))
    budget.take("curvature", partial(ratios.curvature, budget, device, sizes))
    return budget.rows


def main(
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1; cpu runs the same lines on small models.")] = "auto",
    minutes: Annotated[float, typer.Option(help="No piece of work is begun after so many.")] = 8.0,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path, typer.Option(help="The file for the table as JSON.")] = Path("gpu.json"),
) -> None:
    """Correctness on a CUDA device against the CPU, then ratios; writes one JSON, and prints the table of README.md."""
    place = resolve_device(device)
    with tempfile.TemporaryDirectory(dir=folder, prefix="trajcheck-gpu-") as made:
        rows = measured(place, minutes, CPU if place.type == "cpu" else GPU, Path(made))
    show("gpu", {"device": name_of(place), "cuda": torch.version.cuda, "minutes": minutes}, rows, out)
    print(markdown(rows))

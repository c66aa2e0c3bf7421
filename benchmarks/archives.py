"""Archives of others, against the same iterates in trajcheck's own format: opening them and the pass, and memory."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.numpy import save_file

from benchmarks.runs import Shapes, gpt_shapes, workspace
from benchmarks.stream import stored_rows
from benchmarks.table import Row, show
from benchmarks.timing import Task, in_turn, peak_memory
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.runs.references import resolve_references

Tensors = Mapping[str, np.ndarray]

#: Steps between two checkpoints.
APART = 10


def main(
    parameters: Annotated[int, typer.Option(help="Numbers in the model, float32.")] = 25_000_000,
    steps: Annotated[int, typer.Option(help="Checkpoints; 4 bytes a number each.")] = 12,
    rounds: Annotated[int, typer.Option(help="How often each task is timed.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Opening and the pass over each format / over the native one, in turn; peak memory of whole calls."""
    with workspace(folder) as place:
        shapes = gpt_shapes(parameters)
        _write(place, shapes, steps)
        tasks = {name: _opening_and_pass(place / name) for name in WRITERS}
        times = in_turn(tasks, rounds)
        rows = [Row("native: opening and the pass", times.of("native"), "s")]
        rows += [
            Row(f"{name} / native", times.ratio(name, "native"), target=1.1) for name in WRITERS if name != "native"
        ]
        memory = {name: _memory(place, name) for name in WRITERS}
        rows += [
            Row(f"{name} / native: peak memory of analyze", memory[name] / memory["native"], target=1.1)
            for name in WRITERS
            if name != "native"
        ]
    settings = {"parameters": f"{parameters:,}", "steps": steps, "rounds": rounds}
    show("Archives of others", settings, rows, out)


def _opening_and_pass(run: Path) -> Task:
    def task() -> None:
        analysis = MeasuredRun(run, Options(("final",), objective="none"), quiet=True)
        stored_rows(analysis, resolve_references(("final",), analysis.trajectory, run.parent))

    return task


def _memory(place: Path, name: str) -> float:
    """In MB."""
    call = ["-m", "trajcheck", "analyze", str(place / name), "--objective", "none", "--quiet"]
    return peak_memory([*call, "--out", str(place / f"report-{name}")])[0]


# -- formats ----------------------------------------------------------------------------------------------------------


def _native(folder: Path, step: int, x: Tensors) -> None:
    record = json.dumps({"format": 1, "step": step})
    tensors = {f"param/{name}": value for name, value in x.items()}
    save_file(tensors, folder / f"step-{step:09d}.safetensors", {"trajcheck": record})


def _trainer(folder: Path, step: int, x: Tensors) -> None:
    """As Hugging Face's Trainer leaves it, in two shards."""
    inner = folder / f"checkpoint-{step}"
    inner.mkdir()
    names = list(x)
    shards = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file, held in shards.items():
        save_file({name: x[name] for name in held}, inner / file, {"format": "pt"})
    table = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (inner / "model.safetensors.index.json").write_text(json.dumps(table))
    log = [{"step": past, "loss": 1.0, "learning_rate": 0.1} for past in range(1, step + 1)]
    (inner / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))


def _torch(folder: Path, step: int, x: Tensors) -> None:
    torch.save({"iter_num": step, "model": _as_torch(x)}, folder / f"ckpt-{step}.pt")


def _distributed(folder: Path, step: int, x: Tensors) -> None:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        dcp.save({"model": _as_torch(x), "step": step}, checkpoint_id=folder / f"step-{step}", no_dist=True)


def _as_torch(x: Tensors) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in x.items()}


WRITERS: dict[str, Callable[[Path, int, Tensors], None]] = {
    "native": _native,
    "Trainer": _trainer,
    "torch": _torch,
    "DCP": _distributed,
}


def _write(place: Path, shapes: Shapes, steps: int) -> None:
    """The same iterates in every format."""
    draw = np.random.default_rng(0)
    x = {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    move = {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name in WRITERS:
        os.makedirs(place / name)
    for number in range(1, steps + 1):
        for name, write in WRITERS.items():
            write(place / name, APART * number, x)
        for name, value in x.items():
            value += np.float32(0.01) * move[name]
            move[name] = np.roll(move[name], 1).reshape(value.shape)

"""`--layers` on models of many tensors: its time grows with their number, and no faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import trajcheck
from benchmarks.runs import Shapes, workspace, write_run
from benchmarks.table import Row, show
from benchmarks.timing import in_turn

REFERENCES = ["final", "init", "mean:3"]


def main(
    tensors: Annotated[int, typer.Option(help="Tensors of the larger model, of 64 numbers each.")] = 1000,
    steps: Annotated[int, typer.Option(help="Records of a run.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often each task is timed.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Processor time of an analysis with its table of layers, towards three references, against writing this table
    with pandas."""
    with workspace(folder) as place:
        tables = {}
        for name, count in (("many", tensors), ("few", tensors // 4)):
            write_run(place / name, _shapes(count), steps)
            tables[name] = _analysis(place / name, place / f"{name}-report")
        tasks = {name: _processor_time(task) for name, task in tables.items()}
        frame = tables["many"]().layers
        assert frame is not None
        tasks["pandas"] = _processor_time(lambda: frame.to_csv(place / "layers.csv", index=False))
        times = in_turn(tasks, rounds, warm=0)
    rows = [
        Row("analysis with --layers / writing its layers.csv with pandas", times.ratio("many", "pandas"), target=3),
        Row(f"{tensors} tensors / {tensors // 4}", times.ratio("many", "few"), target=4.4),
    ]
    show("--layers", {"tensors": tensors, "steps": steps, "references": len(REFERENCES), "rounds": rounds}, rows, out)


def _shapes(count: int) -> Shapes:
    return {f"layer.{number:05d}.weight": (64,) for number in range(count)}


def _analysis(run: Path, report: Path) -> Callable[[], trajcheck.Report]:
    return lambda: trajcheck.analyze(run, out=report, refs=REFERENCES, layers=True, fresh=True)


def _processor_time(task: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        start = time.process_time()
        task()
        return time.process_time() - start

    return timed

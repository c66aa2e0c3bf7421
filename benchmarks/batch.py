"""A batch over an archive of small runs: with two workers, one and none, a shell loop of analyze, a second call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.runs import Shapes, workspace, write_run
from benchmarks.table import Row, show

SHAPES: Shapes = {"body.weight": (32, 32), "body.bias": (32,), "head.weight": (32, 10), "head.bias": (10,)}

#: A second call with nothing new must be so many times faster than the first.
FASTER = 50.0


@dataclass(frozen=True)
class Cost:
    """Of a command: wall clock and processor time of it and of its children, in seconds."""

    wall: float
    processor: float


def cost(command: Sequence[str]) -> Cost:
    """Run a command to its end; it must succeed."""
    environment = {**os.environ, "TRAJCHECK_PLOTS": "0", "OMP_NUM_THREADS": "1"}
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    return Cost(
        wall, sum(getattr(after, each) - getattr(before, each) for each in ("children_user", "children_system"))
    )


def measured(archive: Path, reports: Path, runs: int, looped: int) -> Mapping[str, Cost]:
    """The cost of each way, all of them of all runs; the loop is measured on the first `looped` and scaled."""
    trajcheck = [sys.executable, "-m", "trajcheck"]
    costs = {}
    for name, options in (("none", ()), ("1", ("--workers", "1")), ("2", ("--workers", "2"))):
        batch = [*trajcheck, "batch", str(archive), "--out", str(reports / name), *options]
        costs[name] = cost(batch)
        costs[f"{name}, again"] = min((cost(batch) for _ in range(3)), key=lambda each: each.wall)
        if name != "2":
            shutil.rmtree(reports / name)
    loop = (
        'for run in "$1"/*; do "$0" -m trajcheck analyze "$run" --out "$2/$(basename "$run")" --quiet || exit 1; done'
    )
    part = archive.parent / "part"
    part.mkdir()
    for run in sorted(archive.iterdir())[:looped]:
        (part / run.name).symlink_to(run)
    found = cost(["sh", "-c", loop, sys.executable, str(part), str(reports / "loop")])
    costs["loop"] = Cost(found.wall * runs / looped, found.processor * runs / looped)
    return costs


def main(
    runs: Annotated[int, typer.Option(help="Runs of the archive.")] = 300,
    snapshots: Annotated[int, typer.Option(help="Of each run.")] = 20,
    looped: Annotated[int, typer.Option(help="Runs of which the shell loop is measured; it is scaled to all.")] = 50,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """An archive analyzed by a batch, by a loop, and by a batch that finds nothing new. Ratios of wall clock."""
    looped = min(looped, runs)
    with workspace(folder) as place:
        for number in range(runs):
            write_run(place / "archive" / f"run-{number:04d}", SHAPES, snapshots, seed=number)
        costs = measured(place / "archive", place / "reports", runs, looped)
    rows = []
    for what, one, other in (
        ("--workers 2 / --workers 1", "2", "1"),
        ("--workers 2 / no workers", "2", "none"),
        ("--workers 2 / shell loop of analyze", "2", "loop"),
        ("no workers / shell loop of analyze", "none", "loop"),
    ):
        rows.append(Row(what, costs[one].wall / costs[other].wall))
        rows.append(Row(f"{what}: processor time", costs[one].processor / costs[other].processor))
    for name, words in (("none", "no workers"), ("1", "--workers 1"), ("2", "--workers 2")):
        again = costs[f"{name}, again"]
        rows.append(Row(f"nothing new / first call, {words}", again.wall / costs[name].wall, target=1 / FASTER))
        rows.append(Row(f"nothing new / first call, {words}: processor time", again.processor / costs[name].processor))
    for name, words in (("loop", "shell loop"), ("none", "no workers"), ("2", "--workers 2"), ("2, again", "again")):
        each = costs[name]
        note = f"{each.processor:.3g} s of processor time, {1000 * each.processor / runs:.3g} ms a run"
        rows.append(Row(f"{words}: all runs", each.wall, "s", note=note))
    show("A batch over an archive", {"runs": runs, "snapshots": snapshots, "loop measured on": looped}, rows, out)

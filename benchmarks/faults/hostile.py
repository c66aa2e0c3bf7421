"""Archives from strangers and folders shared with others: what they plant, say and do, hundreds of times.

After each trial nobody else's file is another one, no call hung or ended with a traceback, nothing unfinished is left,
and an undisturbed call ends with the tables that it should.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer

from benchmarks.faults.hostile_faults import FAULTS
from benchmarks.faults.hostile_ground import Ground
from benchmarks.faults.table import Trials, show


def run_trials(place: Path, trials: int, seed: int, faults: Sequence[str]) -> list[Trials]:
    """So many trials, dealt out among the faults: a row for each."""
    torch.set_num_threads(1)
    rows = {name: Trials(name) for name in faults}
    with subprocess.Popen(["sleep", "infinity"]) as neighbour:
        try:
            _make(Ground(place, neighbour.pid), rows, trials, seed)
        finally:
            neighbour.kill()
    return list(rows.values())


def _make(ground: Ground, rows: Mapping[str, Trials], trials: int, seed: int) -> None:
    faults = list(rows)
    for number in range(trials):
        name = faults[number % len(faults)]
        scene = ground.scene(Random(f"{seed} {number} {name}"))
        try:
            FAULTS[name](scene)
        except KeyboardInterrupt:  # the table is of the trials so far
            break
        rows[name].count(scene.wrong, scene.seen)
        if number % 50 == 49:
            print(f"{number + 1} trials, {sum(row.wrong for row in rows.values())} lost or wrong", file=sys.stderr)
        if scene.wrong:
            print(f"trial {number}, {name}, {scene.seen}: {'; '.join(scene.wrong)}", file=sys.stderr)
        shutil.rmtree(scene.place, ignore_errors=True)


def main(
    trials: Annotated[int, typer.Option(help="Trials in all, dealt out among the faults.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other moments.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Only this fault, by its name in the table. Repeat.")] = None,
) -> None:
    """Plant, forge, swap, interrupt and do two things at once; count what is lost, hangs or ends with a traceback."""
    for name in fault or ():
        if name not in FAULTS:
            raise typer.BadParameter(f"{name!r}; expected one of {', '.join(FAULTS)}")
    with tempfile.TemporaryDirectory(prefix="trajcheck-hostile-", dir=folder) as place:
        rows = run_trials(Path(place), trials, seed, fault or list(FAULTS))
    show(rows)
    if any(row.wrong for row in rows):
        raise typer.Exit(1)

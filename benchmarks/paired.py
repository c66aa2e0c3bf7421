"""Whole calls of `trajcheck analyze` against those of another checkout, in turn, by processor time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import paired_runs
from benchmarks.runs import workspace
from benchmarks.start import RUN, processor_time
from benchmarks.table import Row, show
from benchmarks.timing import Task, in_turn

HERE = Path(__file__).parents[1]


def main(
    before: Annotated[Path, typer.Option(help="Another checkout, with its own compiled parts.")],
    rounds: Annotated[int, typer.Option(help="How often each call is timed.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Each checkout reads what it has recorded itself; each call is a process of its own, in turn with the other's."""
    with workspace(None) as place:
        tasks: dict[str, Task] = {}
        for name, tree in (("now", HERE), ("before", before.resolve())):
            runs = place / name
            processor_time((str(HERE / "benchmarks" / "paired_runs.py"), str(runs)), tree, place)
            for call, words in _calls(runs, tree).items():
                tasks[f"{name}: {call}"] = _task(words, tree, runs)
        times = in_turn(tasks, rounds)
    rows = []
    for call in _calls(place, HERE):
        rows += [Row(f"{name}: {call}", times.of(f"{name}: {call}"), "s") for name in ("before", "now")]
        rows.append(Row(f"{call}: now / before", times.ratio(f"now: {call}", f"before: {call}")))
    show("paired", {"rounds": rounds, "clock": "processor time of whole calls"}, rows, out)


def _calls(runs: Path, tree: Path) -> dict[str, tuple[str, ...]]:
    toy = str(tree / RUN.relative_to(HERE))
    losses = ("--objective", f"{tree / 'sample_checkpoints' / 'objectives.py'}:digits")
    small = ("--objective", f"{paired_runs.__file__}:mlp")
    return {
        "toy run with losses and figures": (toy, *losses),
        "toy run with losses, no figures": (toy, *losses, "--no-plots"),
        "148 tensors x 4 steps, --layers": (str(runs / "deep"), "--layers", "--no-plots"),
        "replay of an MLP of 0.27 M, 40 steps": (str(runs / "mlp"), *small, "--no-plots"),
    }


def _task(words: tuple[str, ...], tree: Path, runs: Path) -> Task:
    def task() -> float:
        shutil.rmtree(runs / "report", ignore_errors=True)
        call = ("-m", "trajcheck", "analyze", *words, "--quiet", "--out", str(runs / "report"))
        return processor_time(call, tree, runs)

    return task

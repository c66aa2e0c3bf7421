"""Start of the command: what a call costs before it computes, against `import numpy, pandas`."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.runs import workspace
from benchmarks.table import Row, show
from benchmarks.timing import Task, in_turn

RUN = Path(__file__).parents[1] / "sample_checkpoints" / "digits-sgd-seed0"
IMPORTS = ("-c", "import numpy, pandas")


def main(
    rounds: Annotated[int, typer.Option(help="How often each call is timed.")] = 5,
    before: Annotated[Path | None, typer.Option(help="Another checkout, whose calls are timed in turn.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Processor time of whole calls, each a process of its own, with compiled files of all modules at hand."""
    trees = {"": Path(__file__).parents[1], **({"before: ": before} if before else {})}
    with workspace(None) as place:
        toy = place / "toy"
        shutil.copytree(RUN, toy, ignore=shutil.ignore_patterns("objective.json"))  # so that nothing is replayed
        calls = {
            "trajcheck --version": ("--version",),
            "trajcheck --help": ("--help",),
            "trajcheck analyze, toy run": (
                *("analyze", str(toy), "--out", str(place / "report"), "--quiet", "--no-plots"),
            ),
        }
        tasks: dict[str, Task] = {"imports": lambda: processor_time(IMPORTS, place, place)}
        for name, tree in trees.items():
            for call, words in calls.items():
                tasks[f"{name}{call}"] = _call(words, tree, place)
        times = in_turn(tasks, rounds)
    rows = [Row("import numpy, pandas", times.of("imports"), "s")]
    for name in list(tasks)[1:]:
        target = 1.5 if name.startswith("trajcheck analyze") else None
        rows.append(Row(f"{name} / import numpy, pandas", times.ratio(name, "imports"), target=target))
    show("start of the command", {"rounds": rounds}, rows, out)


def _call(words: tuple[str, ...], tree: Path, place: Path) -> Task:
    return lambda: processor_time(("-m", "trajcheck", *words), tree, place)


def processor_time(arguments: tuple[str, ...], tree: Path, place: Path) -> float:
    """Of python with these arguments, in a checkout, whose package is found first."""
    shutil.rmtree(place / "report", ignore_errors=True)
    known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    known["PYTHONPATH"] = str(tree)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=tree, env=known, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

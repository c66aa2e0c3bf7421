"""Many nodes and many runs on one machine: what the process that shares out the work costs, and what it survives."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.batch import SHAPES, Cost, cost
from benchmarks.cluster.nodes import Nodes, nodes_here
from benchmarks.cluster.tasks import THIS
from benchmarks.runs import workspace, write_run
from benchmarks.table import Row, markdown, show
from benchmarks.timing import peak_memory
from trajcheck.commands.batch.discovery import find_runs
from trajcheck.runners import Done
from trajcheck.runners.ray_cluster import RayRunner

BATCH = ("-m", "trajcheck", "batch")


def empty_tasks(nodes: Nodes, count: int) -> list[Row]:
    """Tasks of no work, from the first to the last; in their middle the newest node is lost and another one comes."""
    tasks = [{"name": str(number), "number": number} for number in range(count)]
    before, memory, began = time.process_time(), _peak(), time.monotonic()
    found: list[int] = []
    with closing(RayRunner(nodes.address, allow=[THIS]).map(f"{THIS}:nothing", tasks)) as outcomes:
        for _, outcome in outcomes:
            assert isinstance(outcome, Done), outcome
            found.append(outcome.value)
            if len(found) == count // 2 and len(nodes.members) > 1:
                nodes.lose()
                nodes.add()
    spent, taken = time.process_time() - before, time.monotonic() - began
    lost_or_twice = count - len(set(found)) + len(found) - len(set(found))
    return [
        Row("tasks lost, or done twice, where a node is lost and one comes", float(lost_or_twice), target=0.0),
        Row("a task of no work: processor time of the driver", 1e3 * spent / count, "ms"),
        Row("a task of no work: time", 1e3 * taken / count, "ms"),
        Row("memory that the driver takes up meanwhile, a task", 1e3 * max(0.0, _peak() - memory) / count, "kB"),
    ]


def many_runs(place: Path, count: int) -> list[Row]:
    """Runs that are found and looked at, and not analyzed: an archive of links to the files of a few."""
    archive = place / "many"
    originals = sorted((place / "few").iterdir())
    for number in range(count):
        original = originals[number % len(originals)]
        folder = archive / f"{number // 1000:03d}" / f"run-{number:06d}"
        folder.mkdir(parents=True)
        for file in original.iterdir():
            os.link(file, folder / file.name)
    before = time.process_time()
    found = len(find_runs([archive], place / "none"))
    looked = time.process_time() - before
    assert found == count
    # One is analyzed and the others are left, so this is what a night costs before its first run.
    start = os.times()
    call = [*BATCH, str(archive), "--out", str(place / "none"), "--max-runs", "1"]
    peak, _ = peak_memory(call, {**os.environ, "TRAJCHECK_PLOTS": "0"})
    end = os.times()
    spent = end.children_user + end.children_system - start.children_user - start.children_system
    return [
        Row(f"{count} runs: found, a run", 1e3 * looked / count, "ms"),
        Row(f"{count} runs: found and compared with what is known, a run", 1e3 * spent / count, "ms"),
        Row(f"{count} runs: peak memory of the driver", peak, "MB"),
    ]


def real_runs(place: Path, nodes: Nodes, count: int) -> list[Row]:
    """A batch on the nodes against one by a worker process; the same tables, byte for byte."""
    archive = place / "real"
    archive.mkdir()
    for original in sorted((place / "few").iterdir())[:count]:
        (archive / original.name).mkdir()
        for file in original.iterdir():
            os.link(file, archive / original.name / file.name)
    ways = {"worker": ("--workers", "1"), "nodes": ("--runner", "ray", "--address", nodes.address)}
    costs: dict[str, Cost] = {}
    for name, options in ways.items():
        call = [sys.executable, *BATCH, str(archive), "--out", str(place / name), *options]
        costs[name] = cost(call)
        costs[f"{name}, again"] = cost(call)
    return [
        Row("tables that differ from those of --workers 1", float(_differing(place, list(ways))), target=0.0),
        Row("a small run on the nodes: processor time of the driver", 1e3 * costs["nodes"].processor / count, "ms"),
        Row("a small run on the nodes: time", 1e3 * costs["nodes"].wall / count, "ms"),
        Row("a small run by --workers 1: time", 1e3 * costs["worker"].wall / count, "ms"),
        Row("nothing new / first call, --workers 1", costs["worker, again"].wall / costs["worker"].wall, target=0.02),
        Row("nothing new / first call, on the nodes", costs["nodes, again"].wall / costs["nodes"].wall, target=0.02),
    ]


def _differing(place: Path, names: Sequence[str]) -> int:
    """How many tables of the reports are not the same in both."""
    one, other = (
        {path.relative_to(place / name): path.read_bytes() for path in (place / name / "real").rglob("*.csv")}
        for name in names
    )
    assert one
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def _peak() -> float:
    """Resident MB of this process so far, at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def measured(place: Path, nodes: int, tasks: int, runs: int, real: int) -> list[Row]:
    """All of it; the machine may bear fewer nodes than were asked for, and the first row says so."""
    for number in range(real):
        write_run(place / "few" / f"run-{number:04d}", SHAPES, 6, seed=number)
    rows = many_runs(place, runs)
    with nodes_here() as there:
        why = ""
        while len(there.members) < nodes and not why:
            try:
                there.add()
            except Exception as error:  # Ray has no class for it
                why = f"of {nodes}; the next one: {type(error).__name__}: {str(error).splitlines()[0]}"
        started = len(there.members)
        rows = [Row("nodes on this machine", float(started), note=why), *rows]
        if there.seconds:
            rows.append(Row("a node, until it is there", sum(there.seconds) / len(there.seconds), "s"))
        rows += real_runs(place, there, real)
        rows += empty_tasks(there, tasks)
    return rows


def main(
    nodes: Annotated[int, typer.Option(help="Nodes on this machine; fewer where it bears no more.")] = 64,
    tasks: Annotated[int, typer.Option(help="Tasks of no work.")] = 10_000,
    runs: Annotated[int, typer.Option(help="Runs of the archive that is looked at.")] = 10_000,
    real: Annotated[int, typer.Option(help="Runs that are analyzed.")] = 100,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """Nodes of Ray on one machine: what the driver costs, a node lost and one added, results as by one worker."""
    with workspace(folder) as place:
        rows = measured(place, nodes, tasks, runs, real)
    show("cluster", {"nodes": nodes, "tasks": tasks, "runs": runs, "real runs": real}, rows, out)
    print(markdown(rows))

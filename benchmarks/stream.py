"""The streaming pass, against reading the same files and against the way a researcher would write it."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from safetensors.numpy import load_file

from benchmarks.runs import gpt_shapes, small_shapes, workspace, write_run
from benchmarks.table import Row, show
from benchmarks.timing import Task, Times, in_turn, peak_memory
from trajcheck.audit.audit import quick_audit
from trajcheck.inner_products import loop as kernel
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.runs.divergence import load_trajectory
from trajcheck.runs.references import Reference, resolve_references
from trajcheck.scalars.saved.store import ScalarStore
from trajcheck.scalars.values import RowScalars

#: What `cat` reads at a time.
CHUNK = 131072


def main(
    parameters: Annotated[int, typer.Option(help="Numbers in the model, float32.")] = 25_000_000,
    steps: Annotated[int, typer.Option(help="Records of the run; 8 bytes a number each.")] = 26,
    rounds: Annotated[int, typer.Option(help="How often each task is timed.")] = 5,
    cold: Annotated[bool, typer.Option(help="Also from a cold cache.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file as JSON.")] = None,
) -> None:
    """The pass against reading the bytes, against numpy, with many references, and against the naive way."""
    with workspace(folder) as place:
        run = place / "run"
        files = write_run(run, gpt_shapes(parameters), steps)
        size = sum(file.stat().st_size for file in files)
        rows = [*_against_reading(run, files, rounds), *_references(place, rounds), *_small_tensors(place, rounds)]
        rows += _naive(place, rounds)
        rows.append(_long_double(place))
        if cold:
            rows.append(_cold(run, files, rounds))
        rows += _start_up(place, rounds)
    settings = {"parameters": f"{parameters:,}", "steps": steps, "size": f"{size / 1e9:.1f} GB", "rounds": rounds}
    show("The streaming pass", settings, rows, out)


# -- tasks ------------------------------------------------------------------------------------------------------------


def the_pass(run: Path, references: Sequence[str] = ("final",), threads: int | None = None) -> Task:
    """The pass alone: the run is opened and its references are resolved beforehand."""
    analysis = MeasuredRun(run, Options(tuple(references), threads=threads), quiet=True)
    points = resolve_references(references, analysis.trajectory, run.parent)
    return lambda: stored_rows(analysis, points)


def the_audit(run: Path, recorded: bool) -> Task:
    """What comes before an analysis: of a run as a Recorder writes it, or of an archive of somebody else."""
    trajectory = load_trajectory(run, skip_bad=False)
    trajectory = replace(trajectory, info=replace(trajectory.info, versions={"trajcheck": "1"} if recorded else {}))
    return lambda: quick_audit(trajectory)


def stored_rows(analysis: MeasuredRun, points: Sequence[Reference]) -> Mapping[int, RowScalars]:
    """The rows of the pass by place, computed anew."""
    measurement = analysis.measurement(points, ScalarStore())
    analysis.compute(measurement, measurement.portions)
    return measurement.scalars()["own"][0]


def reading(files: Sequence[Path], chunk: int = CHUNK) -> Task:
    """What `cat files > /dev/null` does, without starting a process."""
    buffer = bytearray(chunk)

    def read() -> None:
        for file in files:
            descriptor = os.open(file, os.O_RDONLY)
            while os.readv(descriptor, [buffer]):
                pass
            os.close(descriptor)

    return read


@contextmanager
def numpy_loop() -> Iterator[None]:
    """The inner loop is numpy's."""
    before = os.environ.get("TRAJCHECK_KERNEL")
    os.environ["TRAJCHECK_KERNEL"] = "numpy"
    kernel.choose_again()
    try:
        yield
    finally:
        del os.environ["TRAJCHECK_KERNEL"]
        if before is not None:
            os.environ["TRAJCHECK_KERNEL"] = before
        kernel.choose_again()


def with_numpy(task: Task) -> Task:
    def run() -> None:
        with numpy_loop():
            task()

    return run


# -- rows -------------------------------------------------------------------------------------------------------------


def _against_reading(run: Path, files: Sequence[Path], rounds: int) -> list[Row]:
    two, one = the_pass(run, threads=2), the_pass(run, threads=1)
    tasks = {"cat": reading(files), "2": two, "1": one, "numpy 2": with_numpy(two), "numpy 1": with_numpy(one)}
    tasks |= {"audit": the_audit(run, recorded=True), "audit whole": the_audit(run, recorded=False)}
    times = in_turn(tasks, rounds)
    loop = kernel.description()
    return [
        Row("reading alone", times.of("cat"), "s"),
        Row(f"pass, K=1, 2 threads, {loop} / reading", times.ratio("2", "cat"), target=1.15),
        Row(f"pass, K=1, 1 thread, {loop} / reading", times.ratio("1", "cat"), target=1.9),
        Row("pass, K=1, 2 threads, numpy / reading", times.ratio("numpy 2", "cat"), target=2.3),
        Row("pass, K=1, 1 thread, numpy / reading", times.ratio("numpy 1", "cat"), target=4.0),
        Row("audit before it, of a Recorder's run / pass, 1 thread", times.ratio("audit", "1"), target=0.05),
        Row("audit before it, of an archive / pass, 1 thread", times.ratio("audit whole", "1")),
    ]


def _references(place: Path, rounds: int) -> list[Row]:
    run = place / "wide"
    write_run(run, gpt_shapes(3_000_000), 40, "float64")
    specs = [f"step:{2 * number + 3}" for number in range(15)]
    tasks = {str(count): the_pass(run, ["final", *specs][:count]) for count in (1, 8, 16)}
    times = in_turn(tasks, rounds)
    return [
        Row("pass, K=8 / K=1, 40 steps, float64", times.ratio("8", "1"), target=2.0),
        Row("pass, K=16 / K=1, 40 steps, float64", times.ratio("16", "1"), target=3.0),
    ]


def _small_tensors(place: Path, rounds: int) -> list[Row]:
    run = place / "small"
    files = write_run(run, small_shapes(), 100)
    times = in_turn({"cat": reading(files), "pass": the_pass(run)}, rounds)
    return [Row("pass, 148 small tensors, 0.9 M numbers / reading", times.ratio("pass", "cat"), target=2.2)]


def _naive(place: Path, rounds: int) -> list[Row]:
    """Load, flatten, subtract, dot, with everything in memory: what a notebook does."""
    run = place / "naive"
    files = write_run(run, gpt_shapes(12_000_000), 16)
    times = in_turn({"pass": the_pass(run), "naive": lambda: naive(files)}, rounds)
    report = place / "naive-report"
    ours, _ = peak_memory(["-m", "trajcheck", "analyze", str(run), "--out", str(report), "--quiet", "--no-plots"])
    theirs, _ = peak_memory(["-m", "benchmarks.stream", *(str(file) for file in files)])
    return [
        Row("pass / naive way, 1.5 GB: time", times.ratio("pass", "naive"), target=0.1),
        Row("trajcheck analyze / naive way, 1.5 GB: peak memory", ours / theirs, target=0.05),
    ]


def naive(files: Sequence[Path]) -> dict[str, list[float]]:
    """The quantities of the pass towards the last iterate, as one writes them down; float32 throughout."""

    def flat(tensors: dict[str, np.ndarray], kind: str) -> np.ndarray:
        return np.concatenate([value.ravel() for name, value in sorted(tensors.items()) if name.startswith(kind)])

    loaded = [load_file(file) for file in files]
    xs, gs = [flat(each, "param/") for each in loaded], [flat(each, "grad/") for each in loaded]
    table: dict[str, list[float]] = {}

    def put(name: str, value: np.floating) -> None:
        table.setdefault(name, []).append(float(value))

    for t, (x, g) in enumerate(zip(xs, gs, strict=True)):
        put("param_norm", np.linalg.norm(x))
        put("grad_norm", np.linalg.norm(g))
        put("init_dist", np.linalg.norm(x - xs[0]))
        put("ref_dist", np.linalg.norm(x - xs[-1]))
        put("grad_dot_ref", g @ (x - xs[-1]))
        put("grad_dot_param", g @ x)
        if t:
            put("step_norm", np.linalg.norm(x - xs[t - 1]))
            put("grad_dot_step", g @ (x - xs[t - 1]))
        if t + 1 < len(xs):
            put("grad_dot_next", g @ (xs[t + 1] - x))
            put("update_dot_ref", (xs[t + 1] - x) @ (x - xs[-1]))
            put("cos_skip", g @ (xs[t + 1] - xs[-1]) / (np.linalg.norm(g) * np.linalg.norm(xs[t + 1] - xs[-1]) + 1e-30))
        if t and t + 1 < len(xs):
            put("update_cos", (x - xs[t - 1]) @ (xs[t + 1] - x))
    return table


def _long_double(place: Path) -> Row:
    """The largest error of any sum, relative to the norms of its two factors."""
    run = place / "exact"
    files = write_run(run, gpt_shapes(1_000_000), 5)
    analysis = MeasuredRun(run, Options(("final", "init")), quiet=True)
    points = resolve_references(("final", "init"), analysis.trajectory, place)
    rows = stored_rows(analysis, points)
    names = sorted(name for name in load_file(files[0]) if name.startswith("param/"))
    loaded = [load_file(file) for file in files]
    x = [np.concatenate([each[name].ravel() for name in names]).astype(np.longdouble) for each in loaded]
    g = [np.concatenate([each["grad/" + name[6:]].ravel() for name in names]).astype(np.longdouble) for each in loaded]
    worst = 0.0
    for t, row in rows.items():
        vectors = {"x": x[t], "gradient": g[t], "first": x[0]}
        vectors |= {"previous": x[t - 1]} if t else {}
        vectors |= {"next": x[t + 1], "skip": x[t + 1]} if t + 1 < len(x) else {}
        for scalars, table, known in [
            (row.own, STEP_PRODUCTS, vectors),
            *((each, REFERENCE_PRODUCTS, {**vectors, "reference": point})
              for each, point in zip(row.references, (x[-1], x[0]), strict=True)),
        ]:  # fmt: skip
            for name, factors in table.items():
                found = getattr(scalars, name)
                keys = [(key,) if isinstance(key, str) else key for key in factors]
                if found is not None and all(each in known for key in keys for each in key):
                    a, b = (known[key[0]] - known[key[1]] if len(key) == 2 else known[key[0]] for key in keys)
                    scale = math.sqrt(float(a @ a) * float(b @ b))
                    worst = max(worst, abs(float(found - a @ b)) / scale if scale else abs(found))
    return Row("every sum against long double, relative to its factors' norms", worst, target=1e-12)


def _cold(run: Path, files: Sequence[Path], rounds: int) -> Row:
    def from_disk(task: Task) -> Callable[[], float]:
        def measured() -> float:
            for file in files:
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            task()
            return time.perf_counter() - start

        return measured

    tasks = {f"read {size}": from_disk(reading(files, size)) for size in (CHUNK, 1 << 20, 1 << 23)}
    times = in_turn({**tasks, "pass": from_disk(the_pass(run))}, rounds, warm=0)
    best = min(tasks, key=lambda name: times.of(name).median)
    return Row(
        "pass, cold cache / best sequential cold read",
        times.ratio("pass", best),
        target=1.2,
        note="" if times.of(best).median > 1.5 * _warm(files) else "this machine's disk is cached below the system",
    )


def _warm(files: Sequence[Path]) -> float:
    return in_turn({"cat": reading(files)}, 1).of("cat").median


def _start_up(place: Path, rounds: int) -> list[Row]:
    run = place / "toy"
    write_run(run, {"w": (10, 10), "b": (10,)}, 20)

    def command(*arguments: str) -> Task:
        return lambda: peak_memory(list(arguments))

    times: Times = in_turn(
        {
            "import": command("-c", "import numpy, pandas"),
            "analyze": command(
                "-m", "trajcheck", "analyze", str(run), "--out", str(place / "toy-report"), "--quiet", "--no-plots"
            ),
        },
        max(rounds, 5),
    )
    return [
        Row("import numpy, pandas", times.of("import"), "s"),
        Row("trajcheck analyze, 20 toy snapshots / import numpy, pandas", times.ratio("analyze", "import"), target=2.0),
    ]


if __name__ == "__main__":  # the naive way as a process of its own, to see its memory
    naive([Path(argument) for argument in sys.argv[1:]])

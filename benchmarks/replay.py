"""The replay against a loop that reads the same files and makes the same forward and backward passes, and nothing else.

The bare loop loads each step with safetensors, puts the tensors into the model, in the dtype of the replay (small
models are replayed in float64), and calls torch.autograd.grad at x_t and at x_{t-1}, and the loss under no_grad at
every reference. The inner products, which it does not take, are what the
replay costs beyond that; they are measured by a replay that is asked for none.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.models import Task, gpt, gpt_batch, mlp, mlp_batch
from benchmarks.table import Row, show
from benchmarks.timing import Spread, Times, in_turn, peak_memory
from trajcheck import Recorder
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.runs.references import Reference, resolve_references

CPU = torch.device("cpu")

#: One reference, and four of which none is an iterate of the run but the last.
REFS = {1: ("final",), 4: ("final", "mean:2", "mean:3", "mean:4")}

#: Of the bare loop's time; and that of a model of few parameters, whose passes take hardly longer than what is around.
TARGET, SMALL_TARGET, SMALL = 1.10, 1.25, 1_000_000


@dataclass(frozen=True)
class Case:
    """A recorded run: its folder, the task that made it, and how that is written in an objective's file."""

    name: str
    run: Path
    task: Task
    objective: str
    rows: int  # replayed ones: all but the closing iterate
    device: torch.device = CPU

    @property
    def numel(self) -> int:
        return sum(p.numel() for p in self.task[0].parameters())


def record(
    name: str,
    folder: Path,
    task: Task,
    words: str,
    batch: Callable[[], Any],
    steps: int,
    device: torch.device = CPU,
    autocast: torch.dtype | None = None,
) -> Case:
    """Train for some steps with every step recorded."""
    torch.manual_seed(0)
    model, loss = task
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Recorder(folder / name, model, optimizer, every=1, total_steps=steps) as recorder:
        for _ in range(steps):
            z = tuple(part.to(device) for part in batch())
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                value = loss(model, z)
            value.backward()
            recorder.observe(z, value)
            optimizer.step()
            optimizer.zero_grad()
    file = folder / f"{name}.py"
    function = words.partition("(")[0]
    file.write_text(f"from benchmarks.models import {function}\n\n\ndef task():\n    return {words}\n")
    return Case(name, folder / name, task, f"{file}:task", steps, device)


class Bare:
    """The hand-written loop, in a dtype; None: that of the files."""

    def __init__(self, case: Case, references: list[Reference], dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.files = sorted(case.run.glob("step-*.safetensors"))[: case.rows]
        self.model, self.loss = case.task
        self.device = case.device
        # As a researcher has them: their own memory, loaded once.
        self.references = [
            _parameters(self._load(next(iter(reference.parameters.values())).path)) for reference in references
        ]

    def __call__(self) -> None:
        previous: Mapping[str, Tensor] | None = None
        for path in self.files:
            tensors = self._load(path)
            x = _parameters(tensors)
            batch = tensors["batch/0"], tensors["batch/1"]
            self._gradient(x, batch)
            if previous is not None:
                self._gradient(previous, batch)
            for reference in self.references:
                self.forward(reference, batch)
            previous = x

    def forward(self, x: Mapping[str, Tensor], batch: tuple[Tensor, Tensor]) -> float:
        self._put(x)
        with torch.no_grad():
            return float(self.loss(self.model, batch))

    def _gradient(self, x: Mapping[str, Tensor], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        self._put(x)
        return torch.autograd.grad(self.loss(self.model, batch), list(self.model.parameters()))

    def _load(self, path: Any) -> dict[str, Tensor]:
        return {
            name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in load_file(path, device=str(self.device)).items()
            if name.startswith(("param/", "batch/")) or "/" not in name
        }

    def _put(self, x: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.data = x[name]

    def forwards(self) -> None:
        """As many forward passes as a further reference takes, at x*."""
        for path in self.files:
            tensors = self._load(path)
            self.forward(self.references[0], (tensors["batch/0"], tensors["batch/1"]))


def _parameters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a step file; a file of an average holds nothing else."""
    found = {name.removeprefix("param/"): each for name, each in tensors.items() if name.startswith("param/")}
    return found or dict(tensors)


def measure(case: Case, rounds: int, workspace: Path, processor_time: bool) -> list[Row]:
    """All ratios of one run."""
    tasks: dict[str, Callable[[], object]] = {}
    for count, specs in REFS.items():
        analysis = MeasuredRun(case.run, Options(specs, case.objective), quiet=True)
        references = resolve_references(specs, analysis.trajectory, workspace)
        replay = analysis.prepare_replay(references)
        alone = analysis.prepare_replay(references)
        no_products = replace(alone._setting.plan, step_products=[], reference_products=[])
        alone._setting = replace(alone._setting, plan=no_products)
        bare = Bare(case, references, replay.objective.dtype)
        tasks[f"bare {count}"] = bare
        tasks[f"replay {count}"] = partial(_walk, replay)
        tasks[f"alone {count}"] = partial(_walk, alone)
        if count == 1:
            tasks["forward"] = bare.forwards
    times = in_turn(
        {name: partial(_processor_time, each) if processor_time else each for name, each in tasks.items()}, rounds
    )
    return [*itertools.chain.from_iterable(_against_bare(case, count, times) for count in REFS), *_extra(case, times)]


def _processor_time(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def _walk(replay: Any) -> None:
    for _ in replay.rows():
        pass


def _against_bare(case: Case, count: int, times: Times) -> list[Row]:
    ratio = times.ratio(f"replay {count}", f"bare {count}")
    alone = times.ratio(f"alone {count}", f"bare {count}")
    products = Spread.of(
        [
            (whole - without) / bare
            for whole, without, bare in zip(
                *(times.seconds[f"{name} {count}"] for name in ("replay", "alone", "bare")), strict=True
            )
        ]
    )
    note, target = "", SMALL_TARGET if case.numel < SMALL else TARGET
    if ratio.median > target:
        note = (
            f"{ratio.median - target:.2f} above the target; {products.median:.2f} of the bare loop's time are inner "
            f"products and what is read for them, {alone.median - 1:.2f} the evaluator around the passes"
        )
    title = f"{case.name}: replay, K={count}"
    return [
        Row(f"{title}, against the bare loop", ratio, target=target, note=note),
        Row(f"{title}, without inner products, against the bare loop", alone),
        Row(f"{title}, inner products, in the bare loop's time", products),
        Row(f"{title}, a row", Spread.of([each / case.rows for each in times.seconds[f"replay {count}"]]), "s"),
    ]


def _extra(case: Case, times: Times) -> list[Row]:
    """What each reference beyond the first costs, in forward passes."""
    few, many = REFS
    extra = [
        (b - a) / (many - few) / forward
        for a, b, forward in zip(
            times.seconds[f"replay {few}"], times.seconds[f"replay {many}"], times.seconds["forward"], strict=True
        )
    ]
    found = Spread.of(extra)
    note = "" if found.median <= 1.1 else "its inner products, and the evaluator around the pass"
    return [Row(f"{case.name}: a further reference, in forward passes", found, target=1.1, note=note)]


def peaks(case: Case) -> list[Row]:
    """Peak memory of `trajcheck analyze` with K=4, without --memory and with the least that it can be."""
    cost = MeasuredRun(case.run, Options(REFS[4], case.objective), quiet=True).cost()
    rows = [
        Row(f"{case.name}: kept on the device, K=4, without --memory", cost.device / 10**6, "MB"),
        Row(f"{case.name}: kept on the device, K=4, at least", cost.device_minimum / 10**6, "MB"),
    ]
    for size in ("", f"{cost.device_minimum}B"):
        with tempfile.TemporaryDirectory() as out:
            arguments = ["-m", "trajcheck", "analyze", str(case.run), "--objective", case.objective, "--out", out]
            arguments += [part for spec in REFS[4] for part in ("--ref", spec)]
            arguments += ["--memory", size] if size else []
            peak, _ = peak_memory(arguments)
        what = "the least --memory" if size else "without --memory"
        rows.append(Row(f"{case.name}: peak memory of the process, K=4, {what}", peak, "MB"))
    return rows


def program_against_file(rounds: int) -> list[Row]:
    """`trajcheck analyze` of a sample run, start to end, with its exported program and with the objective's file: the
    processor time of each process, in turn."""
    samples = Path(__file__).parents[1] / "sample_checkpoints"

    def taken(objective: str) -> float:
        arguments = ["-m", "trajcheck", "analyze", str(samples / "digits-sgd-seed0"), "--objective", objective]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, *arguments, "--quiet", "--no-plots", "--out", f"{out}/report"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    times = in_turn(
        {"run": partial(taken, "run"), "file": partial(taken, f"{samples / 'objectives.py'}:digits")}, rounds
    )
    title = "trajcheck analyze, toy run of 120 steps: --objective run / the objective's file, processor time"
    return [Row(title, times.ratio("run", "file"), target=1.10)]


def main(
    layers: Annotated[int, typer.Option(help="Layers of the GPT.")] = 4,
    width: Annotated[int, typer.Option(help="Its width, a multiple of 64.")] = 320,
    vocabulary: Annotated[int, typer.Option(help="Its tokens.")] = 4096,
    length: Annotated[int, typer.Option(help="Its context.")] = 128,
    batch: Annotated[int, typer.Option(help="Sequences in a batch.")] = 4,
    hidden: Annotated[int, typer.Option(help="Width of the MLP.")] = 256,
    steps: Annotated[int, typer.Option(help="Recorded steps of the GPT; the MLP has ten times as many.")] = 3,
    rounds: Annotated[int, typer.Option(help="How often everything is measured.")] = 3,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Of all threads, in place of the clock: where others compute too.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON too.")] = None,
) -> None:
    """Replay at K=1 and K=4 against a bare PyTorch loop with the same reads and passes."""
    settings: dict[str, object] = {name: value for name, value in locals().items() if name != "out"}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = f"layers={layers}, width={width}, vocabulary={vocabulary}, length={length}"
        large = record(
            "gpt",
            folder,
            gpt(layers, width, vocabulary, length),
            f"gpt({shape})",
            lambda: gpt_batch(batch, vocabulary, length),
            steps,
        )
        small = record("mlp", folder, mlp(hidden), f"mlp({hidden})", lambda: mlp_batch(128), 10 * steps)
        rows = [row for case in (large, small) for row in measure(case, rounds, folder, processor_time)]
        rows += peaks(large)
        rows += program_against_file(rounds)
        settings |= {"gpt parameters": large.numel, "mlp parameters": small.numel, "threads": torch.get_num_threads()}
    settings["seconds"] = round(time.perf_counter() - started)
    show("replay", settings, rows, out)

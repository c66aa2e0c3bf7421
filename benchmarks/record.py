"""The training step of a small GPT with the Recorder and without."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.every_step import every_step_rows
from benchmarks.known_by_content import Adapted, content_rows
from benchmarks.small_gpt import SmallGPT, loss_of
from benchmarks.table import Row, show
from benchmarks.timing import Spread, in_turn
from trajcheck import Recorder
from trajcheck.recording.schedule.time_spent import Clock

#: Shares of the training thread: with window sums, without them, and of it what every-step.f64 adds.
WINDOWS_TARGET, TARGET, FOUR_TARGET = 0.05, 0.02, 0.01
FOUR, NEITHER = "four numbers of every step", "no record, no numbers"
RUN = 100_000  # steps of the run that the default schedule is told of
WARM = 4  # steps of each round that are not timed: the writer's queue fills

PROCESSOR_TIME = (
    "Measure processor time of the training thread, with one thread of torch: for a machine that others use as well. "
    "Waiting for the disk is not in it."
)

#: How the run is recorded; None: without a recorder.
RECORDINGS: Mapping[str, dict[str, Any] | None] = {
    "without a recorder": None,
    FOUR: {"every": 10**9},
    NEITHER: {"every": 10**9, "every_step": False},
    "every step": {"every": 1},
    "every=10": {"every": 10},
    f"default, {RUN:,} steps": {"total_steps": RUN},
    "every=10, windows": {"every": 10, "windows": True},
    "every step, windows": {"every": 1, "windows": True},
}


@dataclass
class Loop:
    """Training steps on batches of the same shape, recorded into `folder`."""

    model: torch.nn.Module
    batches: list[torch.Tensor]
    folder: Path
    clock: Clock = time.perf_counter
    optimizer: torch.optim.Optimizer = field(init=False)
    recorded_bytes: int = 0

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=3e-4)

    def steps(self, count: int, recorder: Recorder | None) -> None:
        for number in range(count):
            batch = self.batches[number % len(self.batches)]
            loss = loss_of(self.model, batch)
            loss.backward()
            if recorder is not None:
                recorder.observe(batch, loss)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def timed(self, count: int, options: dict[str, Any] | None, shares: list[float]) -> float:
        """Seconds of `count` steps, the queue of the writer being full or empty as the disk leaves it. The recorder's
        share of the training thread goes to `shares`."""
        if options is None:
            self.steps(WARM, None)
            start = self.clock()
            self.steps(count, None)
            return self.clock() - start
        with Recorder(self.folder, self.model, self.optimizer, quiet=True, strict=True, **options) as recorder:
            spent = recorder.spent
            spent.clock = self.clock
            self.steps(WARM, recorder)
            before = spent.records + spent.every_step, spent.training
            start = self.clock()
            self.steps(count, recorder)
            taken = self.clock() - start
            shares.append((spent.records + spent.every_step - before[0]) / (spent.training - before[1]))
        self.recorded_bytes = max(file.stat().st_size for file in self.folder.glob("step-*"))
        shutil.rmtree(self.folder)
        return taken


def main(
    layers: Annotated[int, typer.Option(help="Blocks of the GPT.")] = 4,
    width: Annotated[int, typer.Option(help="Its width.")] = 256,
    batch: Annotated[int, typer.Option(help="Sequences in a batch.")] = 8,
    length: Annotated[int, typer.Option(help="Tokens in a sequence.")] = 128,
    vocabulary: Annotated[int, typer.Option(help="Different tokens.")] = 4096,
    steps: Annotated[int, typer.Option(help="Steps in a round.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 3,
    threads: Annotated[list[int] | None, typer.Option(help="Threads of torch; repeat it. Default: 1.")] = None,
    processor_time: Annotated[bool, typer.Option(help=PROCESSOR_TIME)] = False,
    folder: Annotated[Path | None, typer.Option(help="Where records go, and are deleted again.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON, too.")] = None,
) -> None:
    """Training with a recorder against training without, in turn; and the training thread's time in the recorder."""
    # Adam's second moments of tokens rarely drawn: with denormal numbers a step takes four times as long.
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = SmallGPT(layers, width, length, vocabulary)
    batches = [torch.randint(vocabulary, (batch, length + 1)) for _ in range(4)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="trajcheck-record-") as made:
        loop = Loop(model, batches, Path(made) / "run", time.thread_time if processor_time else time.perf_counter)
        for count in [1] if processor_time else threads or [1]:
            torch.set_num_threads(count)
            rows += _rows(loop, steps, rounds, count)
        torch.set_num_threads(1)
        adapted = Loop(Adapted(layers, width, length, vocabulary), batches, Path(made) / "adapted", loop.clock)
        on = f"frozen, {sum(p.numel() for p in adapted.model.parameters()):,} parameters"
        rows += content_rows(adapted.timed, loop.clock, steps, rounds, on)
        rows += every_step_rows(Path(made), loop.clock, 3 * rounds)
    settings = {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "tokens a batch": batch * length,
        "bytes a record": f"{loop.recorded_bytes:,}",
        "optimizer": "Adam",
        "steps a round": steps,
        "rounds": rounds,
        "clock": "processor time of the training thread" if processor_time else "wall clock",
    }
    show("record", settings, rows, out)


def _rows(loop: Loop, steps: int, rounds: int, threads: int) -> list[Row]:
    shares: dict[str, list[float]] = {name: [] for name in RECORDINGS}

    def task(name: str, options: dict[str, Any] | None) -> Callable[[], float]:
        return lambda: loop.timed(steps, options, shares[name])

    times = in_turn({name: task(name, options) for name, options in RECORDINGS.items()}, rounds)
    bare, *recorded = RECORDINGS
    on = f"{threads} thread{'s' if threads > 1 else ''}"
    step = statistics.median(times.seconds[bare]) / steps
    rows = [Row(f"{on}: a step without a recorder", step, "s")]
    for name in recorded:
        share = Spread.of(shares[name][-rounds:])
        target = WINDOWS_TARGET if "windows" in name else TARGET
        note = _note(share, step, target)
        rows.append(Row(f"{on}: {name}: time in the recorder", share, target=target, note=note))
        rows.append(Row(f"{on}: {name}: steps against those without", times.ratio(name, bare)))
    pairs = zip(shares[FOUR][-rounds:], shares[NEITHER][-rounds:], strict=True)
    added = Spread.of([four - neither for four, neither in pairs])
    note = _note(added, step, FOUR_TARGET)
    rows.append(Row(f"{on}: every-step.f64 adds to the time in the recorder", added, target=FOUR_TARGET, note=note))
    return rows


def _note(share: Spread, step: float, target: float) -> str:
    if share.median <= target:
        return ""
    return f"{share.median * step * 1e3:.1f} ms a step, of a step of {step * 1e3:.0f} ms"

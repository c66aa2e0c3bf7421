"""A transformers.Trainer with the callback and without: what the one line costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from benchmarks.table import Row, show
from benchmarks.timing import Task, in_turn

#: How the run is recorded; None: without the callback.
RECORDINGS: Mapping[str, dict[str, Any] | None] = {
    "without the callback": None,
    "every step": {"every": 1},
    "every=10": {"every": 10},
    "default": {},
}


def main(
    layers: Annotated[int, typer.Option(help="Blocks of the GPT-2.")] = 4,
    width: Annotated[int, typer.Option(help="Its width.")] = 256,
    batch: Annotated[int, typer.Option(help="Sequences in a batch.")] = 8,
    length: Annotated[int, typer.Option(help="Tokens in a sequence.")] = 128,
    steps: Annotated[int, typer.Option(help="Steps of a training.")] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON, too.")] = None,
) -> None:
    """Whole trainings by transformers.Trainer with the callback against those without, in turn."""
    torch.set_num_threads(threads)
    with TemporaryDirectory(prefix="trajcheck-trainer-") as made:
        place = Path(made)

        def task(options: dict[str, Any] | None) -> Task:
            return lambda: train(place, layers, width, batch, length, steps, options)

        tasks: dict[str, Task] = {name: task(options) for name, options in RECORDINGS.items()}
        times = in_turn(tasks, rounds)
    bare, *recorded = RECORDINGS
    rows = [Row("a step without the callback", statistics.median(times.seconds[bare]) / steps, "s")]
    rows += [Row(f"{name}: training against training without", times.ratio(name, bare)) for name in recorded]
    settings: dict[str, object] = {
        "layers": layers,
        "width": width,
        "tokens a batch": batch * length,
        "steps": steps,
        "threads": threads,
    }
    show("transformers.Trainer", settings, rows, out)


def train(
    place: Path, layers: int, width: int, batch: int, length: int, steps: int, options: dict[str, Any] | None
) -> float:
    """Seconds of one training of a GPT-2 on random tokens, as the Trainer counts them; the run is deleted again."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from trajcheck.integrations.hf import TrajcheckCallback

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=4096, n_positions=length, n_embd=width, n_layer=layers, n_head=4, bos_token_id=0, eos_token_id=0
    )
    tokens = torch.randint(4096, (batch * 4, length))
    arguments = TrainingArguments(
        str(place / "checkpoints"),
        per_device_train_batch_size=batch,
        max_steps=steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=True,
    )
    with TemporaryDirectory(dir=place) as folder:
        callbacks = [] if options is None else [TrajcheckCallback(Path(folder) / "run", quiet=True, **options)]
        trainer = Trainer(
            model=GPT2LMHeadModel(config),
            args=arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
            callbacks=callbacks,
        )
        return float(trainer.train().metrics["train_runtime"])

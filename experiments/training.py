"""One training, recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import trajcheck
from experiments import data, models
from experiments.optimizers import factor, optimizers_of
from experiments.recipe import Training

#: In place of an optimizer: points that no training leads to.
RANDOM_POINTS = "random-points"


def record(training: Training, folder: Path) -> None:
    """Train, and record into `folder`, which holds a whole run afterwards or does not exist."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)  # a training that was interrupted begins anew
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    _train(training, unfinished)
    unfinished.rename(folder)


def _train(training: Training, folder: Path) -> None:
    examples = data.load(training.data)
    torch.manual_seed(training.seeds[0])
    model, loss_of = getattr(models, training.model)()
    if training.optimizer == RANDOM_POINTS:
        return _visit_random_points(training, folder, model, loss_of, examples)
    rate, steps = training.rate / training.divisor, training.steps * training.divisor
    optimizers = optimizers_of(training.optimizer, model, rate)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    batches = _batches(examples, training.batch, training.seeds[1])
    with trajcheck.Recorder(
        folder,
        model,
        optimizers,
        loss_of,
        schedule=_schedule(training),
        total_steps=steps,
        windows=training.divisor == 1,
        user=_told(training),
        overhead=None,
        strict=True,
        quiet=True,
    ) as recorder:
        if training.probe_batches:
            recorder.probe(examples.probe(training.probe_batches))
        for step in range(steps):
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            for group, first in zip(groups, rates, strict=True):
                group["lr"] = first * factor(training.schedule, step, steps)
            batch = next(batches)
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            for optimizer in optimizers:
                optimizer.step()
            for optimizer in optimizers:
                optimizer.zero_grad()


def _told(training: Training) -> dict[str, Any]:
    """What the run says of itself, by which reports are grouped."""
    return {**asdict(training), "batch": training.batch or "all"}


def _visit_random_points(
    training: Training, folder: Path, model: nn.Module, loss_of: models.Loss, examples: data.Data
) -> None:
    """No training: the init, then so many points in random directions, all `rate` away from it."""
    batch, first = examples.batch(), parameters_to_vector(model.parameters()).detach().clone()
    with trajcheck.Recorder(
        folder,
        model,
        None,
        loss_of,
        every=1,
        total_steps=training.steps,
        overhead=None,
        user=_told(training),
        strict=True,
        quiet=True,
    ) as recorder:
        for _ in range(training.steps):
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            away = torch.randn_like(first)
            with recorder.update(lr=0.0), torch.no_grad():
                vector_to_parameters(first + training.rate * away / away.norm(), model.parameters())
            model.zero_grad()


def _schedule(training: Training) -> trajcheck.Every | trajcheck.Pairs:
    if training.divisor > 1 or training.pairs == 1:
        return trajcheck.Every(training.divisor)
    return trajcheck.Pairs(training.pairs)


def _batches(examples: data.Data, size: int, seed: int) -> Iterator[Any]:
    """Batches of `size` drawn without replacement, epoch after epoch; all examples at once where it is 0."""
    generator = torch.Generator().manual_seed(1000 + seed)
    while True:
        if not size or size >= len(examples):
            yield examples.batch()
            continue
        order = torch.randperm(len(examples), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            yield examples.batch(order[start : start + size])

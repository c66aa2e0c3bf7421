"""The networks with all that they are trained on, as `--sample full` takes them: the training loss itself, whatever the
batches were. In one batch, whose statistics a batch normalisation takes."""

from __future__ import annotations

from typing import Any

from experiments import data, models


def mlp() -> tuple[Any, ...]:
    return *models.mlp(), _digits()


def cnn() -> tuple[Any, ...]:
    return *models.cnn(), _digits()


def resnet() -> tuple[Any, ...]:
    return *models.resnet(), _digits()


def _digits() -> list[Any]:
    return [data.load("digits").batch()]

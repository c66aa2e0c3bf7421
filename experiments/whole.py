"""The perceptron with all that it is trained on, as `--sample full` takes it: the training loss itself, whatever the
batches were; and in eight batches, as `--probe 8` takes them: fixed samples of what is trained on."""

from __future__ import annotations

from typing import Any

import torch

from experiments import data, models


def mlp() -> tuple[Any, ...]:
    return *models.mlp(), [data.load("digits").batch()]


def mlp_eighths() -> tuple[Any, ...]:
    digits = data.load("digits")
    size = len(digits) // 8
    return *models.mlp(), [digits.batch(torch.arange(i * size, (i + 1) * size)) for i in range(8)]

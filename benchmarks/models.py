"""Models with their losses that the benchmark of the replay trains, records and replays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.small_gpt import SmallGPT

Task = tuple[nn.Module, Any]


def gpt(layers: int, width: int, vocabulary: int, length: int) -> Task:
    """A GPT and the mean cross-entropy of the next token; a batch is (tokens, the tokens one further on)."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, following = batch
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    return SmallGPT(layers, width, length, vocabulary), loss


def gpt_batch(size: int, vocabulary: int, length: int) -> tuple[Tensor, Tensor]:
    """Random tokens."""
    tokens = torch.randint(vocabulary, (size, length + 1))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def mlp(width: int) -> Task:
    """An MLP of three layers on 784 numbers, for ten classes; a batch is (inputs, classes)."""
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, classes = batch
        return F.cross_entropy(model(inputs), classes)

    return model, loss


def mlp_batch(size: int) -> tuple[Tensor, Tensor]:
    """Random inputs and classes."""
    return torch.randn(size, 784), torch.randint(10, (size,))

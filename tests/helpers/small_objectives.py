"""Small models, a loss and a batch, and the objective evaluated with the parameters loaded in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CPU = torch.device("cpu")


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.mse_loss(model(inputs), targets)


def regression_batch(inputs: int = 3, outputs: int = 2, rows: int = 8) -> dict[str, Tensor]:
    return {"0": torch.randn(rows, inputs), "1": torch.randn(rows, outputs)}


def parameters_of(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Other values than the model's own, under its raw names."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(p.shape, generator=generator).to(p.dtype) for name, p in model.named_parameters()}


def in_place(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], x: dict[str, Tensor], batch: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain way: load x into the model, call backward, read .grad."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(x[name])
    model.zero_grad()
    value = loss(model, batch)
    value.backward()
    return value.detach(), {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


def next_token(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.rnn(inputs, (torch.zeros(2, len(inputs), 4), torch.zeros(2, len(inputs), 4)))
        return self.head(hidden[:, -1])


def normalised(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(dropout), nn.ReLU(), nn.Linear(4, 2))

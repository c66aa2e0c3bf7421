"""A network with frozen, tied, normalised and dropped parts, for objective files."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Odd(nn.Module):
    """A frozen layer, tied weights, batch normalisation, dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)
        self.first.weight.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(4, 4)
        self.third = nn.Linear(4, 4)
        self.third.weight = self.second.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.dropout(torch.tanh(self.second(self.norm(self.first(x))))))


def squared(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()

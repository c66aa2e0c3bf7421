"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math

import torch
from torch import nn


def optimizers_of(name: str, model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """`sgd`, `momentum` (0.9), `adamw` (weight decay 0.01), or `muon` for the matrices of the blocks with AdamW, at a
    tenth of the rate, for all else. One optimizer, or the two of Muon."""
    if name == "sgd":
        return [torch.optim.SGD(model.parameters(), lr=rate)]
    if name == "momentum":
        return [torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)]
    if name == "adamw":
        return [torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)]
    if name != "muon":
        raise ValueError(f"optimizer = {name!r}; expected sgd, momentum, adamw or muon")
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(f"torch {torch.__version__} has no Muon; torch 2.9 and later have")
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and name.startswith("blocks.")]
    known = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in known]
    return [torch.optim.Muon(matrices, lr=rate), torch.optim.AdamW(rest, lr=rate / 10, weight_decay=0.01)]


def factor(schedule: str, step: int, steps: int) -> float:
    """What the rate is multiplied by at a step: `constant`, `cosine` (to 0), or `warmup-cosine`, which rises linearly
    over the first tenth."""
    if schedule == "constant":
        return 1.0
    warmup = steps // 10 if schedule == "warmup-cosine" else 0
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

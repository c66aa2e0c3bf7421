"""The objectives of the runs in this folder, as `--objective sample_checkpoints/objectives.py:digits` takes them.

Each function returns (model, loss) with loss(model, batch) -> scalar tensor; the batches are in the runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Objective = tuple[nn.Module, Callable[[nn.Module, Any], Tensor]]

CONTEXT = 32
WIDTH = 32
HEADS = 4

#: For --match-permutations, by objective: which axes permute together, as trajcheck/permutations/declared.py reads it.
#: Queries, keys and values are fused as [3, HEADS, WIDTH // HEADS]: a block for each head, in three segments.
PERMUTATIONS: dict[str, dict[str, list[tuple[Any, ...]]]] = {
    "digits": {"hidden": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]},
    "transformer": {},
}
for block in ("blocks.0", "blocks.1"):
    PERMUTATIONS["transformer"] |= {
        f"{block}.mlp": [(f"{block}.mlp.0.weight", 0), (f"{block}.mlp.0.bias", 0), (f"{block}.mlp.2.weight", 1)],
        f"{block}.heads": [
            (f"{block}.qkv.weight", 0, WIDTH // HEADS, 3),
            (f"{block}.qkv.bias", 0, WIDTH // HEADS, 3),
            (f"{block}.project.weight", 1, WIDTH // HEADS),
        ],
    }


def digits() -> Objective:
    """A multilayer perceptron 64-16-10 on 8x8 images; a batch is (pixels 0..16 as uint8 [n, 64], labels [n])."""
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        pixels, labels = batch
        scale = next(model.parameters())
        return F.cross_entropy(model(pixels.to(scale.dtype) / 16), labels)

    return model, loss


def breast_cancer() -> Objective:
    """Logistic regression, convex; a batch is (standardised features [n, 30], labels 0. or 1. [n])."""
    model = nn.Linear(30, 1, dtype=torch.float64)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        features, labels = batch
        return F.binary_cross_entropy_with_logits(model(features).squeeze(1), labels)

    return model, loss


def transformer() -> Objective:
    """A causal transformer on bytes; a batch is uint8 [n, CONTEXT + 1]."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        text = batch.long()
        logits = model(text[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())

    return Transformer(), loss


class Transformer(nn.Module):
    """Two pre-norm blocks; the output layer is tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, WIDTH)
        self.positions = nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, 256, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.output.weight = self.embedding.weight

    def forward(self, text: Tensor) -> Tensor:
        x = self.dropout(self.embedding(text) + self.positions[: text.shape[1]])
        return self.output(self.norm(self.blocks(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))

    def attention(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
        return self.project(mixed.transpose(1, 2).reshape(n, length, WIDTH))

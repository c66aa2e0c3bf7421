"""The networks and their losses. Each function returns (model, loss) with loss(model, batch) -> scalar tensor, as
`--objective experiments/models.py:NAME` takes them; `PERMUTATIONS` says which of their units permute.

A batch of images is (pixels 0..16 as uint8 [n, 64], labels [n]); of a table (features [n, k], targets [n]); of text
bytes as uint8 [n, length + 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[nn.Module, Any], Tensor]
Objective = tuple[nn.Module, Loss]
Batch = tuple[Tensor, Tensor]


def _norm(name: str) -> list[tuple[str, int]]:
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


#: A stream is what a block adds to: all that write into it or read from it share its channels.
PERMUTATIONS = {
    "mlp": {"hidden": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]},
    "cnn": {
        "first": [("1.weight", 0), ("1.bias", 0), ("3.weight", 1)],
        "second": [("3.weight", 0), ("3.bias", 0), ("6.weight", 1, 4)],
    },
    "resnet": {
        "stream 0": [
            *[("first.0.weight", 0), *_norm("first.1"), ("blocks.0.one.weight", 1), ("blocks.0.two.weight", 0)],
            *[*_norm("blocks.0.norm2"), ("blocks.1.one.weight", 1), ("blocks.1.short.weight", 1)],
        ],
        "stream 1": [
            *[("blocks.1.two.weight", 0), *_norm("blocks.1.norm2"), ("blocks.1.short.weight", 0)],
            *[("blocks.2.one.weight", 1), ("blocks.2.short.weight", 1)],
        ],
        "stream 2": [
            *[("blocks.2.two.weight", 0), *_norm("blocks.2.norm2"), ("blocks.2.short.weight", 0), ("last.weight", 1)]
        ],
        **{
            f"inside {i}": [
                *[(f"blocks.{i}.one.weight", 0), *_norm(f"blocks.{i}.norm1"), (f"blocks.{i}.two.weight", 1)]
            ]
            for i in range(3)
        },
    },
}


def least_squares() -> Objective:
    """Linear regression on ten features, convex."""
    return nn.Linear(10, 1, dtype=torch.float64), _squares


def logistic() -> Objective:
    """Logistic regression on thirty features, convex."""
    return nn.Linear(30, 1, dtype=torch.float64), _logistic


def mlp() -> Objective:
    """A perceptron 64-64-10 with ReLU, 4,810 parameters."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), _pixels


def cnn() -> Objective:
    """Two convolutions of stride 2 with ReLU and a linear layer, 5,482 parameters."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 28, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(112, 10),
    ), _pixels


def resnet() -> Objective:
    """Three residual blocks with batch normalisation, of 8, 16 and 32 channels, 20,000 parameters."""
    return ResNet((8, 16, 32)), _pixels


def wide_resnet() -> Objective:
    """The same of 32, 64 and 128 channels, 310,000 parameters."""
    return ResNet((32, 64, 128)), _pixels


def deep_linear() -> Objective:
    """Three linear layers 64-32-32-10 in float64."""
    return nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)).double(), _pixels


def deep_relu() -> Objective:
    """The same with ReLU between the layers."""
    layers = nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    return nn.Sequential(*layers).double(), _pixels


def deep_convolutional() -> Objective:
    """Two convolutions of stride 2 with ReLU and a linear layer, in float64."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).double(), _pixels


def smooth_mlp() -> Objective:
    """A perceptron 64-32-32-10 with tanh in float64, and half the squared distance from the label's unit vector."""
    layers = nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)
    return nn.Sequential(*layers).double(), _unit_vectors


def transformer_tiny() -> Objective:
    """One block of width 16 on bytes, 8,400 parameters: for tests."""
    return Transformer(width=16, blocks=1, heads=2), _next_byte


def transformer_1m() -> Objective:
    """Four blocks of width 144, 1.05 million parameters."""
    return Transformer(width=144, blocks=4, heads=4), _next_byte


def transformer_10m() -> Objective:
    """Six blocks of width 368, 9.9 million parameters."""
    return Transformer(width=368, blocks=6, heads=8), _next_byte


def _squares(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch[0]).squeeze(1), batch[1])


def _logistic(model: nn.Module, batch: Batch) -> Tensor:
    return F.binary_cross_entropy_with_logits(model(batch[0]).squeeze(1), batch[1])


def _pixels(model: nn.Module, batch: Batch) -> Tensor:
    pixels, labels = batch
    return F.cross_entropy(model(pixels.to(next(model.parameters()).dtype) / 16), labels)


def _unit_vectors(model: nn.Module, batch: Batch) -> Tensor:
    pixels, labels = batch
    return 5 * F.mse_loss(model(pixels.double() / 16), F.one_hot(labels, 10).double())


def _next_byte(model: nn.Module, batch: Tensor) -> Tensor:
    text = batch.long()
    return F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


class ResNet(nn.Module):
    """A convolution, then blocks that each double or keep the channels, then the mean over places."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0]))
        before = (channels[0], *channels[:-1])
        self.blocks = nn.Sequential(*(Residual(a, b) for a, b in zip(before, channels, strict=True)))
        self.last = nn.Linear(channels[-1], 10)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.first(pixels.view(-1, 1, 8, 8)))
        return self.last(self.blocks(x).mean((2, 3)))


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))); where channels grow, at half the resolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.one = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.two = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.short(x) + self.norm2(self.two(F.relu(self.norm1(self.one(x))))))


class Transformer(nn.Module):
    """Causal, pre-norm, on bytes; the output layer is tied to the embedding."""

    def __init__(self, width: int, blocks: int, heads: int, length: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 256, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.output.weight = self.embedding.weight

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text) + self.positions[: text.shape[1]]
        return self.output(self.norm(self.blocks(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(mixed.transpose(1, 2).reshape(n, length, width))

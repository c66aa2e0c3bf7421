"""Models to export and replay without this file: tied embeddings, dropout and attention, convolutions and BatchNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, CONTEXT, WIDTH = 19, 8, 12


class SecretlyNamedBlock(nn.Module):
    """Pre-norm attention (scaled_dot_product_attention, causal) and a layer; dropout in both where p > 0."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(p))
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, length, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True)
        x = x + mixed.transpose(1, 2).reshape(n, length, WIDTH)
        return x + self.mlp(x)


class Language(nn.Module):
    """A small transformer whose output layer is its embedding; its causal mask of positions is a plain tensor."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(0.1 * torch.randn(CONTEXT, WIDTH))
        self.block = SecretlyNamedBlock(p)
        self.output = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((WIDTH,), 0.5), persistent=False)
        self.shift = torch.linspace(-1, 1, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.scale + self.positions[: tokens.shape[1]] + self.shift
        return self.output(self.block(x))


def next_token(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


class Convolutional(nn.Sequential):
    def __init__(self) -> None:
        first = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        super().__init__(*first, nn.Conv2d(4, 4, 2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))


def classify(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["images"]), batch["labels"], label_smoothing=0.1)


def tokens(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def images(rows: int, seed: int) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return {
        "images": torch.randn(rows, 1, 8, 8, generator=stream),
        "labels": torch.randint(3, (rows,), generator=stream),
    }

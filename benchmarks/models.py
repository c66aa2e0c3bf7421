"""Models and losses that the benchmarks train, record and replay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Task = tuple[nn.Module, Any]


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inner, self.outer = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.inner(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.outer(mixed.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    """One layer of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


class GPT(nn.Module):
    """A transformer over tokens, [batch, length] to [batch, length, vocabulary]; the head is tied to the embedding."""

    def __init__(self, layers: int, width: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, width // 64) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.layers(x)))


def gpt(layers: int, width: int, vocabulary: int, length: int) -> Task:
    """A GPT and the mean cross-entropy of the next token; a batch is (tokens, the tokens one further on)."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, following = batch
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    return GPT(layers, width, vocabulary, length), loss


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

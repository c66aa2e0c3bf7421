"""Small trainings that are recorded to their end, where losses are small and rounding is large beside them.

An MLP, a convolutional network with batch statistics, and a transformer, on clusters or sequences that they learn.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

import trajcheck

MODELS = ("mlp", "cnn", "transformer")


class Attention(nn.Module):
    """One block of a transformer over tokens, the next of which it predicts."""

    def __init__(self, words: int = 16, width: int = 24, length: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(torch.randn(length, width) / 10)
        self.block = nn.TransformerEncoderLayer(width, 2, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        ahead = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=self.places.dtype)
        hidden = self.words(tokens) + self.places[: tokens.shape[1]]
        return self.head(self.block(hidden, src_mask=ahead, is_causal=True)).flatten(0, 1)


def made(name: str) -> nn.Module:
    """A model by name."""
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    if name == "cnn":
        first = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*first, nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8))
    return Attention()


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    if inputs.is_floating_point():
        inputs = inputs.to(next(model.parameters()).dtype)
    return nn.functional.cross_entropy(model(inputs), targets.flatten())


def objective(name: str, path: Path) -> str:
    """An objective file for a model."""
    here = Path(__file__).parent
    path.write_text(
        f"import sys; sys.path.insert(0, {str(here)!r})\n"
        f"from near_the_end import loss_of, made\ndef objective():\n    return made({name!r}), loss_of\n"
    )
    return f"{path}:objective"


def record(name: str, folder: Path, *, seed: int = 0, steps: int = 400, last: int | None = None) -> Path:
    """Train with momentum (AdamW for the transformer) and a rate that falls to 0, and record every one of the `last`
    steps; the run's folder."""
    torch.manual_seed(seed)
    centres = torch.randn(8, 1, 8, 8)
    table = torch.randint(16, (16,))

    def batch() -> tuple[Tensor, Tensor]:
        if name == "transformer":
            tokens = [torch.randint(16, (16,))]
            for _ in range(12):
                tokens.append(table[tokens[-1]])
            sequence = torch.stack(tokens, 1)
            return sequence[:, :-1], sequence[:, 1:]
        targets = torch.randint(8, (32,))
        return centres[targets] + 0.7 * torch.randn(32, 1, 8, 8), targets

    model = made(name)
    if name == "transformer":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    falls = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 * (1 + math.cos(math.pi * k / steps)))

    def step() -> tuple[tuple[Tensor, Tensor], Tensor]:
        z = batch()
        loss = loss_of(model, z)
        loss.backward()
        return z, loss

    def update() -> None:
        optimizer.step()
        falls.step()
        optimizer.zero_grad()

    first = 0 if last is None else steps - last
    for _ in range(first):
        step()
        update()
    with trajcheck.Recorder(folder, model, optimizer, every=1, start_step=first, quiet=True) as recording:
        for _ in range(first, steps):
            recording.observe(*step())
            update()
    return folder

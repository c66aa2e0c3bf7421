"""The runs that `paired` analyses, written by the trajcheck of a checkout: python paired_runs.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def mlp() -> tuple[nn.Module, Any]:
    """Of 0.27 million numbers; a batch is (inputs, classes)."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))

    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return model, loss


def deep() -> tuple[nn.Module, Any]:
    """Of 148 tensors."""
    _, loss = mlp()
    layers = [layer for _ in range(73) for layer in (nn.Linear(16, 16), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(16, 10)), loss


def main(folder: Path) -> None:
    from trajcheck import Recorder

    torch.manual_seed(0)
    for name, (model, loss), width, steps in (("mlp", mlp(), 784, 40), ("deep", deep(), 16, 4)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        with Recorder(folder / name, model, optimizer, every=1, quiet=True) as recorder:
            for _ in range(steps):
                batch = torch.randn(128, width), torch.randint(10, (128,))
                value = loss(model, batch)
                value.backward()
                recorder.observe(batch, value)
                optimizer.step()
                optimizer.zero_grad()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The models of the tests, the benchmarks and the sample runs, as programs of plain data, against their own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import near_the_end
import odd_network
import pytest
import rank_training
import torch
from exported_runs import compare, exported, seeded
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import known_by_content, small_gpt
from benchmarks.faults import training
from sample_checkpoints import objectives
from trajcheck.objective.objective import Objective

Case = tuple[Callable[[], nn.Module], Callable[[nn.Module, Any], Tensor], Callable[[int], Any]]


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(many: int, *shape: int, seed: int) -> Tensor:
    return torch.randint(many, shape, generator=torch.Generator().manual_seed(seed))


def classes(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 3))


#: The second batch has other sizes.
MODELS: dict[str, Case] = {
    "transformer of torch": (
        lambda: near_the_end.Attention(5, 4, 6),
        near_the_end.loss_of,
        lambda seed: (words(5, 2 + seed, 5, seed=seed), words(5, 2 + seed, 5, seed=seed + 1)),
    ),
    "convolutions": (
        lambda: near_the_end.made("cnn"),
        near_the_end.loss_of,
        lambda seed: (numbers(3 + seed, 1, 8, 8, seed=seed), words(8, 3 + seed, seed=seed)),
    ),
    "tied and frozen": (
        lambda: odd_network.Odd(0.2),
        odd_network.squared,
        lambda seed: (numbers(5 + seed, 3, seed=seed), numbers(5 + seed, 4, seed=seed + 1)),
    ),
    "float64 with a buffer": (
        rank_training.Normed,
        rank_training.loss_of,
        lambda seed: words(7, 3 + seed, 6 - seed, seed=seed),
    ),
    "GPT with adapters": (
        lambda: known_by_content.Adapted(1, 64, 8, 11),
        small_gpt.loss_of,
        lambda seed: words(11, 2 + seed, 6 - seed, seed=seed),
    ),
    "frozen layer and statistics": (
        training.Net,
        classes,
        lambda seed: (numbers(5 + seed, 6, seed=seed), words(3, 5 + seed, seed=seed)),
    ),
    "sample transformer": (
        objectives.Transformer,
        objectives.transformer()[1],
        lambda seed: words(256, 2 + seed, 7 - seed, seed=seed).to(torch.uint8),
    ),
    "spectral norm": (
        spectral,
        classes,
        lambda seed: (numbers(4 + seed, 6, seed=seed), words(3, 4 + seed, seed=seed)),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_known_models(tmp_path: Path, name: str) -> None:
    if name == "spectral norm" and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        pytest.skip("this torch cannot trace it")
    make, loss, batches = MODELS[name]
    model = seeded(make)
    here, own = exported(tmp_path, model, loss, batches(0)), Objective(seeded(make), loss)
    for seed in (0, 1):
        compare(here, own, model, batches(seed))
    here.prepare("float64"), own.prepare("float64")
    compare(here, own, model, batches(1))

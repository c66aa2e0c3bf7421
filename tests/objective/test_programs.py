"""Programs as plain data give what the model itself gives: loss, gradient and Hessian product, for the same draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_runs import compare, exported, sample, seeded
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trajcheck.errors import ObjectiveError
from trajcheck.objective.objective import Objective


class Everything(nn.Module):
    """Convolutions and BatchNorm, dropout, a tied layer, buffers that change, one that is complex, a plain tensor."""

    average: Tensor
    wave: Tensor
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.25)
        self.mix, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.mix.weight
        self.head = nn.Linear(4, 3)
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("wave", torch.polar(torch.ones(4), torch.arange(4.0)))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.shift = torch.linspace(-1, 1, 4)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        x = self.drop(torch.relu_(self.norm(self.conv(images))))
        x = F.adaptive_avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        with torch.no_grad():
            self.average.mul_(0.9).add_(x.mean((0, 1)), alpha=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.mix(x)
        x = x + y.float() + checkpoint(lambda t: torch.tanh(self.again(t)), x, use_reentrant=False)
        x = x + torch.einsum("bij,kj->bik", x, self.mix.weight) * self.shift - self.average.clone()
        x = torch.view_as_real(torch.complex(x, -x) * self.wave).sum(-1) + torch.tensor([0.0, 1.0, 2.0, 3.0])
        return self.head(x.mean(1))


def labelled(model: nn.Module, batch: Any) -> Tensor:
    """Of the labelled rows alone, weighted by a number that carries no gradient."""
    out = model(batch[0])
    with torch.no_grad():
        weight = 1 + out.std()
    return F.cross_entropy(out, batch[1], ignore_index=-1) * weight + F.gelu(out, approximate="tanh").square().mean()


def pictures(rows: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (rows,), generator=stream)
    return torch.randn(rows, 2, size, size, generator=stream), labels.index_fill(0, torch.tensor([0]), 1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.gates = nn.LSTM(5, 6, 2, batch_first=True, dropout=0.2), nn.GRU(6, 4, batch_first=True)
        self.cell, self.head = nn.LSTMCell(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gates(self.cells(x)[0])[0]
        return self.head(self.cell(x[:, -1], (x[:, 0], x.mean(1)))[0])


def sequences(rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(rows, length, 5, generator=stream), torch.randint(3, (rows,), generator=stream)


def classes(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_a_program_of_everything(tmp_path: Path) -> None:
    model = seeded(Everything)
    here = exported(tmp_path, model, labelled, pictures(6, 8, 0))
    for batch in (pictures(6, 8, 1), pictures(9, 6, 2)):
        compare(here, Objective(seeded(Everything), labelled), model, batch)


def test_recurrent_networks(tmp_path: Path) -> None:
    model = seeded(Recurrent)
    here = exported(tmp_path, model, classes, sequences(4, 6, 0))
    for batch in (sequences(4, 6, 1), sequences(3, 6, 2)):
        compare(here, Objective(seeded(Recurrent), classes), model, batch)


def test_gpt2_with_its_own_loss(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=29, n_embd=8, n_layer=1, n_head=2, n_positions=12)

    def made() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = transformers.GPT2LMHeadModel(config)
        return model.train()

    def own_loss(model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = model(input_ids=batch, labels=batch).loss
        return found

    def tokens(rows: int, length: int) -> Tensor:
        return torch.randint(29, (rows, length), generator=torch.Generator().manual_seed(rows))

    model = seeded(made)
    here = exported(tmp_path, model, own_loss, tokens(3, 8))
    for batch in (tokens(3, 8), tokens(2, 11)):
        compare(here, Objective(seeded(made), own_loss), model, batch)


class Pooled(nn.Sequential):
    """Of sequences of any length."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = super().forward(x).mean(1)
        return found


def test_sizes_for_which_the_program_does_not_hold_are_refused(tmp_path: Path) -> None:
    """Tracing followed one branch; at sizes of the other its loss would be another one, in silence."""

    def by_size(model: nn.Module, batch: Any) -> Tensor:
        loss = classes(model, batch)
        return 2 * loss if batch[0].shape[0] > 4 and batch[0].shape[1] % 3 == 0 else loss

    model = seeded(Pooled)
    here = exported(tmp_path, model, by_size, sequences(6, 6, 0))
    compare(here, Objective(seeded(Pooled), by_size), model, sequences(5, 9, 1))
    x = {name: p.detach() for name, p in model.named_parameters()}
    for rows, length in ((4, 6), (6, 7)):
        with pytest.raises(ObjectiveError, match=r"node 'size_\d+' \(python.require\): the batch does not fit"):
            here.loss(x, sample(sequences(rows, length, 1)))


@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9), reason="this torch cannot trace it")
def test_rows_that_a_mask_selects(tmp_path: Path) -> None:
    """How many they are is told by the labels, not by the sizes of the batch."""

    def selected(model: nn.Module, batch: Any) -> Tensor:
        known = batch[1] > 0
        return F.cross_entropy(model(batch[0])[known], batch[1][known])

    model = seeded(Pooled)
    here = exported(tmp_path, model, selected, sequences(6, 6, 0))
    for rows in (6, 9):
        compare(here, Objective(seeded(Pooled), selected), model, sequences(rows, 6, rows))


LOSSES: dict[str, tuple[Callable[[nn.Module, Any], Tensor], str]] = {
    "histogram": (
        lambda model, batch: torch.histc(model(batch[0])).mean() + classes(model, batch),
        "uses aten.histc, which",
    ),
    "strided": (
        lambda model, batch: model(batch[0]).as_strided((2,), (1,)).sum(),
        "uses aten.as_strided, which is not",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_program_cannot_say_is_named(tmp_path: Path, name: str) -> None:
    loss, reason = LOSSES[name]
    with pytest.raises(ObjectiveError, match=reason):
        exported(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(30, 3)), loss, sequences(4, 6, 0))
    assert not list(tmp_path.iterdir())

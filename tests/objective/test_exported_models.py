"""Kinds of models that are exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_runs import assert_same, exported, sample, seeded
from loops import batch_of, loss_of, weights
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.objective.objective import Objective


class Upcast(nn.Module):
    """Computes in float32 whatever its parameters are; constants of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 3), torch.linspace(0, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).float() + self.table + torch.tensor([1.0, 2.0, 3.0]) + torch.zeros(3, dtype=torch.float32)
        with torch.no_grad():
            gate = torch.sigmoid(y).to(torch.float32)
        return (gate * y).type_as(x)


class Wide(Upcast):
    """`Upcast` as it would be written for float64."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) + self.table.double() + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        with torch.no_grad():
            gate = torch.sigmoid(y)
        return gate * y


def test_a_float64_replay_is_not_rounded_by_the_program(tmp_path: Path) -> None:
    model = seeded(Upcast)
    here = exported(tmp_path, model, loss_of, batch_of(0)).prepare("float64")
    other = Wide()
    other.table = torch.linspace(0, 1, 3)
    assert_same(here, Objective(other, loss_of).prepare("float64"), model, batch_of(0), dtype=torch.float64)
    narrow = seeded(Upcast).bfloat16()
    low = exported(tmp_path, narrow, lambda m, b: loss_of(m, (b[0].to(m.layer.weight.dtype), b[1])), batch_of(0))
    assert_same(
        low.prepare("float64"), Objective(other, loss_of).prepare("float64"), narrow, batch_of(0), dtype=torch.float64
    )
    # In float32 it is what was exported.
    low = exported(tmp_path, model, loss_of, batch_of(0)).prepare("float32")
    assert_same(low, Objective(Upcast(), loss_of), model, batch_of(0))


class Odd(nn.Module):
    """Unused, empty, frozen and scalar parameters, a module under two names, a buffer that is assigned anew."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.norm = nn.BatchNorm1d(4)
        self.norm_again = self.norm
        self.last = nn.Linear(4, 3)
        self.unused, self.empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(0, 3))
        self.frozen = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.average = 0.5 * self.average + x.mean(0)
        h = self.norm_again(self.again(self.norm(self.first(x)))) * self.frozen
        return self.last(h + self.average) * self.gain + self.empty.sum()


KINDS: dict[str, Callable[[], nn.Module]] = {
    "odd": Odd,
    "lstm": lambda: Recurrent(),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 3)),
    "encoder": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), nn.Flatten(), nn.Linear(4, 3)
    ),
    "checkpoint": lambda: Checkpointed(),
    "noise": lambda: Noisy(),
}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, 4, num_layers=2, dropout=0.3, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(-1, 2, 2))[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False))


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + 0.1 * torch.randn_like(x) + torch.rand(x.shape[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_models(tmp_path: Path, kind: str) -> None:
    model = seeded(KINDS[kind])
    here = exported(tmp_path, model, loss_of, batch_of(0))
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for size in (6, 3):
        assert_same(here, Objective(seeded(KINDS[kind]), loss_of), model, batch_of(1, size), buffers=buffers)


def test_lookups_and_weights_that_are_written(tmp_path: Path) -> None:
    """An embedding with max_norm writes into its weight: the caller's tensor stays as it is."""

    class Limited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 4, max_norm=0.5), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).mean(1))

    model = seeded(Limited)
    batch = (torch.arange(12).reshape(6, 2) % 7, batch_of(0)[1])
    here = exported(tmp_path, model, loss_of, batch)
    assert_same(here, Objective(Limited(), loss_of), model, batch)


def test_a_loss_that_is_a_module(tmp_path: Path) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 0.5, 0.3]))
            self.temperature = nn.Parameter(torch.tensor(2.0))

        def forward(self, model: nn.Module, batch: Any) -> Tensor:
            return self.criterion(model(batch[0]) * self.temperature, batch[1])

        def value(self, model: nn.Module, batch: Any) -> Tensor:
            return self(model, batch)

    for loss_fn in (Weighted(), Weighted().value):
        model = seeded(lambda: nn.Linear(4, 3))
        here = exported(tmp_path, model, loss_fn, batch_of(0))
        for dtype in (None, "float64"):
            other = Objective(nn.Linear(4, 3), Weighted())
            if dtype is not None:
                here.prepare(dtype), other.prepare(dtype)
            assert_same(here, other, model, batch_of(1), dtype=here.dtype)


def test_a_data_set_that_the_loss_closes_over_is_a_constant(tmp_path: Path) -> None:
    data = torch.randn(20, 4)

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(data[batch[0]]), batch[1])

    model = seeded(lambda: nn.Linear(4, 3))
    batch = (torch.arange(6), batch_of(0)[1])
    here = exported(tmp_path, model, loss_fn, batch)
    assert_same(here, Objective(nn.Linear(4, 3), loss_fn), model, batch)
    here.prepare("float64")
    expected = Objective(nn.Linear(4, 3).double(), loss_of).loss(weights(model), sample((data[:6].double(), batch[1])))
    assert torch.equal(here.loss(weights(model), sample(batch)), expected)

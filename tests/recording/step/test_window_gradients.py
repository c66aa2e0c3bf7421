"""Missing, sparse, tied, transposed and low-precision gradients in window sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import batch_of, loss_of, network, read, sgd
from torch import Tensor, nn
from window_reference import Dense, double_batch, of_kind
from windowed_runs import windowed

from trajcheck.recording.sums import window_vectors


def test_missing_and_sparse_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_vectors, "CHUNK_CPU", 6)
    monkeypatch.setattr(window_vectors, "compiled", lambda: None)
    model = nn.Embedding(5, 2, sparse=True, dtype=torch.float64)
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    model.register_parameter("scalar", nn.Parameter(torch.ones(())))
    model.register_parameter("empty", nn.Parameter(torch.ones(0, 2)))
    optimizer = sgd(model)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(7):
            indices = torch.tensor([step % 5, 3])
            loss = model(indices).square().sum()
            loss.backward()
            recorder.observe(indices, loss)
            assert model.weight.grad is not None
            was, model.weight.grad = model.weight.grad, model.weight.grad.to_dense()
            dense.note(model, loss.item())
            model.weight.grad = was
            optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-12)
    assert read(tmp_path, 3)[0]["window/empty"].shape == (0, 2)


class Tied(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.again = inner, inner[4]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_only_what_is_trained_and_recorded_is_summed(tmp_path: Path) -> None:
    model = network().double()
    model[1].bias.requires_grad_(False)
    tied = Tied(model)
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[4].parameters()], lr=0.1)
    dense = Dense()
    with windowed(tmp_path, tied, optimizer, every=3, parameters="weight") as recorder:
        for step in range(7):
            loss = loss_of(tied, double_batch(step))
            loss.backward()
            recorder.observe(double_batch(step), loss)
            dense.note(tied, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert of_kind(read(tmp_path, 3)[0], "window").keys() == {"inner.0.weight", "inner.4.weight"}
    dense.check(tmp_path, 1e-12)


def test_other_memory_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum is stored in the order of the parameter's indices, whatever that of its memory."""
    monkeypatch.setattr(window_vectors, "CHUNK_CPU", 20)
    monkeypatch.setattr(window_vectors, "compiled", lambda: None)
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = sgd(model, momentum=0.9)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for _ in range(7):
            images = torch.randn(2, 2, 4, 4, dtype=torch.float64)
            loss = model(images).square().mean()
            loss.backward()
            recorder.observe(images, loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert not model.weight.is_contiguous()
    dense.check(tmp_path, 1e-12)


@pytest.mark.parametrize("masters", [True, False])
def test_low_precision_weights(masters: bool, tmp_path: Path) -> None:
    """The master is x; without one the sums are float32 ones of the weights as they are."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).bfloat16()
    held = [p.detach().float() for p in model.parameters()] if masters else list(model.parameters())
    shadow = nn.Linear(4, 3) if masters else model  # holds what the optimizer updates, for the reference
    optimizer = torch.optim.SGD(held, lr=0.05)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=3) as recorder:
        for step in range(7):
            loss = loss_of(model, (batch_of(step)[0].bfloat16(), batch_of(step)[1]))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            if masters:
                for p, master, copied in zip(model.parameters(), held, shadow.parameters(), strict=True):
                    assert p.grad is not None
                    master.grad = p.grad.float() / 3
                    copied.data, copied.grad = master.clone(), master.grad.clone()
            dense.note(shadow, loss.item())
            optimizer.step()
            model.zero_grad()
            if masters:
                with torch.no_grad():
                    for p, master in zip(model.parameters(), held, strict=True):
                        p.copy_(master)
    dense.check(tmp_path, 1e-6)

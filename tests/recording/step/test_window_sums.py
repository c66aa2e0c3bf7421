"""trajcheck.recording.step.window_sums: the sums of a record are those of a loop that keeps every x_t and g_t."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import batch_of, loss_of, network, read, recorded_steps, sgd, train, trajectory
from torch import nn
from window_reference import Dense, double_batch
from windowed_runs import windowed

from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Every, Listed, Pairs
from trajcheck.recording.sums import window_vectors

OPTIMIZERS = [
    lambda ps: torch.optim.SGD(ps, lr=0.1),
    lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    lambda ps: torch.optim.AdamW(ps, lr=0.01),
    lambda ps: torch.optim.AdamW(ps, lr=0.01, fused=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "nesterov", "AdamW", "fused"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["double", "single"])
@pytest.mark.parametrize("schedule", [Every(4), Every(1), Pairs(5), Listed([2, 9])], ids=repr)
@pytest.mark.parametrize("chunk", [1 << 18, 7], ids=["whole", "cut"])
def test_sums_over_every_step(
    make: Any, dtype: torch.dtype, rtol: float, schedule: Any, chunk: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(window_vectors, "CHUNK_CPU", chunk)
    if chunk < 100:
        monkeypatch.setattr(window_vectors, "compiled", lambda: None)
    model = network().to(dtype)
    optimizer = make(model.parameters())
    dense = Dense()
    with windowed(tmp_path, model, optimizer, schedule=schedule) as recorder:
        for step in range(13):
            batch = double_batch(step)
            loss = loss_of(model, (batch[0].to(dtype), batch[1]))
            loss.backward()
            recorder.observe(batch, loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert "window" not in read(tmp_path, recorded_steps(tmp_path)[0])[1]
    dense.check(tmp_path, rtol)


@pytest.mark.parametrize("make", OPTIMIZERS[1:3])
@pytest.mark.parametrize("every", [1, 5])
def test_training_is_bit_identical_with_and_without_windows(make: Any, every: int, tmp_path: Path) -> None:
    def of_model(model: nn.Module) -> Any:
        return make(model.parameters())

    plain, plain_states = trajectory(of_model, None)
    recorded, recorded_states = trajectory(of_model, tmp_path, every=every, windows=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain_states, recorded_states, strict=True))


def test_gradients_are_left_as_they_are(tmp_path: Path) -> None:
    results = []
    for recorded in (False, True):
        model = network()
        optimizer = sgd(model)
        recorder = windowed(tmp_path, model, optimizer) if recorded else None
        loss_of(model, batch_of(0)).backward()
        if recorder:
            recorder.clipped(0.5)
        optimizer.step()
        results.append([p.grad for p in model.parameters()])
        if recorder:
            recorder.close()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_rest_of_a_record_does_not_depend_on_windows(tmp_path: Path) -> None:
    for windows in (False, True):
        model = network()
        with Recorder(tmp_path / str(windows), model, sgd(model), every=3, quiet=True, windows=windows) as recorder:
            train(model, recorder._optimizer, 8, recorder)
    for step in (0, 3, 6, 8):
        tensors, metadata = read(tmp_path / "True", step)
        tensors = {name: t for name, t in tensors.items() if not name.startswith("window/")}
        metadata.pop("window", None)
        metadata["checksum"] = {name: crc for name, crc in metadata["checksum"].items() if name in tensors}
        expected, expected_metadata = read(tmp_path / "False", step)
        del expected_metadata["checksum"]["metadata"]
        assert metadata == expected_metadata
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)


def test_large_float32_tensors_are_summed_to_seven_digits(tmp_path: Path) -> None:
    """A hundred thousand elements, a hundred steps, float32 throughout."""
    torch.manual_seed(0)
    model = nn.Linear(350, 300)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    dense = Dense()
    with windowed(tmp_path, model, optimizer, every=100) as recorder:
        for _ in range(100):
            loss = model(torch.randn(4, 350)).square().mean()
            loss.backward()
            recorder.observe(torch.zeros(1), loss)
            dense.note(model, loss.item())
            optimizer.step()
            optimizer.zero_grad()
    dense.check(tmp_path, 1e-7)

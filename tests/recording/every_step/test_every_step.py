"""every-step.f64 as a Recorder writes it: numbers are those of a loop that keeps x_t and g_t in double."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trajcheck.errors import OutputError
from trajcheck.recording.every_step import every_step, log_file
from trajcheck.recording.every_step.rows import BLOCK, Rows
from trajcheck.recording.recorder import Recorder

NAN = math.nan


def records(run: Path) -> np.ndarray:
    return np.fromfile(run / "every-step.f64", "<f8").reshape(-1, 4)


def network(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 1)).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float32) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    stream = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield (torch.randn(5, 6, generator=stream).to(dtype), torch.randn(5, 1, generator=stream).to(dtype))


class Dense:
    """The same four numbers in double."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.rows = model, list[tuple[float, ...]]()

    def before(self) -> None:
        self.x = [p.detach().double().clone() for p in self.model.parameters()]
        self.g = sum(float(p.grad.double().square().sum()) for p in self.model.parameters() if p.grad is not None)

    def after(self, loss: float, rate: float) -> None:
        now = [p.detach().double() for p in self.model.parameters()]
        moved = sum(float((a - b).square().sum()) for a, b in zip(now, self.x, strict=True))
        self.rows.append((loss, rate, self.g, moved))


def trained(
    run: Path,
    steps: int,
    make: Callable[[Any], torch.optim.Optimizer],
    dtype: torch.dtype = torch.float32,
    between: Callable[[int, Any], object] = lambda step, model: None,
    **options: Any,
) -> np.ndarray:
    """A training with a schedule of rates and with clipping; what the loop saw of each step."""
    model = network(dtype)
    optimizer, dense = make(model.parameters()), Dense(model)
    with Recorder(run, model, optimizer, quiet=True, strict=True, **{"every": 7, **options}) as recorder:
        for step, batch in enumerate(batches(steps, dtype)):
            between(step, model)
            rate = 0.05 / (1 + step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            recorder.observe(batch, loss)
            if step % 3 == 0:
                recorder.clip_grad_norm_(0.1)
            dense.before()
            optimizer.step()
            dense.after(loss.item(), rate)
            optimizer.zero_grad()
    return np.array(dense.rows)


@pytest.mark.parametrize(
    ("dtype", "library", "aside"),
    [
        (torch.float32, "compiled", 1 << 20),
        (torch.float32, "compiled", 0),
        (torch.float32, "torch", 1 << 20),
        (torch.float64, "torch", 0),
        (torch.bfloat16, "torch", 1 << 20),
    ],
)
def test_numbers_of_every_step(
    dtype: torch.dtype, library: str, aside: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every_step, "ASIDE", aside)
    if library == "torch":
        monkeypatch.setattr("trajcheck.recording.sums.squares.compiled", lambda: None)
        monkeypatch.setattr("trajcheck.recording.sums.squares.CHUNK_CPU", 7)
    # nesterov with foreach adds the momentum to .grad in place: g_t is what it was before
    expected = trained(tmp_path / "run", 36, lambda ps: torch.optim.SGD(ps, momentum=0.9, nesterov=True), dtype)
    found = records(tmp_path / "run")
    np.testing.assert_array_equal(found[:, :2], expected[:, :2])
    np.testing.assert_allclose(found[:, 2], expected[:, 2], rtol=1e-12)
    # the difference of two float32 numbers near each other is exact, or rounded once
    np.testing.assert_allclose(found[:, 3], expected[:, 3], rtol=1e-12 if dtype is torch.float64 else 1e-6)


def test_what_something_else_changed_is_no_update(tmp_path: Path) -> None:
    def edited(step: int, model: Any) -> None:
        if step == 10:
            with torch.no_grad():
                model[0].weight.mul_(0.5)  # raises a version
        if step == 20:
            model[2].weight.data.mul_(0.5)  # does not

    with pytest.warns(RuntimeWarning, match="before 2 of the steps"):
        expected = trained(tmp_path / "run", 25, torch.optim.Adam, between=edited)
    expected[[9, 19], 3] = NAN  # where they ended is not x_10, x_20
    np.testing.assert_allclose(records(tmp_path / "run"), expected, rtol=1e-6)


def test_a_job_that_goes_on_cuts_the_file_to_its_first_step(tmp_path: Path) -> None:
    run, sgd = tmp_path / "run", torch.optim.SGD
    trained(run, 20, sgd)
    first = records(run)
    with open(run / "every-step.f64", "ab") as file:
        file.write(b"torn")
    trained(run, 6, sgd, start_step=15)
    assert len(records(run)) == 21
    np.testing.assert_array_equal(records(run)[:15], first[:15])
    np.testing.assert_array_equal(records(run)[15:, 0], first[:6, 0])  # the same batches again
    trained(run, 2, sgd, start_step=10, every_step=False)  # what later jobs made is gone with their records
    np.testing.assert_array_equal(records(run), first[:10])
    trained(run, 1, sgd, start_step=13)
    assert np.isnan(records(run)[10:13]).all() and np.isfinite(records(run)[13]).all()


def test_without_it(tmp_path: Path) -> None:
    trained(tmp_path / "run", 3, torch.optim.SGD, every_step=False)
    assert not (tmp_path / "run/every-step.f64").exists()


def test_a_closure_counts_the_first_time(tmp_path: Path) -> None:
    model = network()
    optimizer, dense = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3), Dense(model)
    with Recorder(tmp_path, model, optimizer, every=50, quiet=True, strict=True) as recorder:
        for batch in batches(4):
            losses: list[float] = []

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(model(batch[0]), batch[1])  # noqa: B023
                loss.backward()
                recorder.observe(batch, loss)  # noqa: B023
                if not losses:  # noqa: B023
                    dense.before()
                losses.append(loss.item())  # noqa: B023
                return loss

            optimizer.step(closure)
            dense.after(losses[0], 0.5)
    np.testing.assert_allclose(records(tmp_path), dense.rows, rtol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_loss_scaler_skips_and_accumulation(fused: bool, tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler, dense = torch.amp.GradScaler("cpu", init_scale=8.0), Dense(model)
    with Recorder(tmp_path, model, optimizer, every=50, scaler=scaler, quiet=True, strict=True) as recorder:
        for step, batch in enumerate(batches(5)):
            total = 0.0
            for part in range(2):
                loss = F.mse_loss(model(batch[0][part::2]), batch[1][part::2]) * (1e38 if step == 2 else 1.0)
                scaler.scale(loss / 2).backward()
                recorder.observe(batch, loss, weight=0.5)
                total += 0.5 * loss.item()
            dense.before()
            skipped = any(not p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
            dense.g /= scaler.get_scale() ** 2
            scaler.step(optimizer)
            scaler.update()
            dense.after(total, 0.0 if skipped else 0.1)
            if skipped:
                dense.rows[-1] = (total, 0.0, NAN, 0.0)
            optimizer.zero_grad()
    assert [row[1] for row in dense.rows] == [0.1, 0.1, 0.0, 0.1, 0.1]
    np.testing.assert_allclose(records(tmp_path), dense.rows, rtol=1e-6)


def test_what_is_not_known(tmp_path: Path) -> None:
    model = network()
    first, second = (torch.optim.SGD(model[k].parameters(), lr=rate) for k, rate in ((0, 0.1), (2, 0.2)))
    with Recorder(tmp_path, model, [first, second], every=50, quiet=True) as recorder, pytest.warns(RuntimeWarning):
        for step, batch in enumerate(batches(3)):
            model.zero_grad()
            loss = F.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            if step:
                recorder.observe(batch, loss)
            first.step()
            if step == 1:
                second.step()
        recorder.close()
    found = np.isfinite(records(tmp_path))
    # of step 0 no loss was observed; rates of groups differ; one of two optimizers made no update in steps 0 and 2
    assert found.tolist() == [[False, False, False, True], [True, False, True, True], [True, False, False, True]]


def test_a_file_that_cannot_be_written_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_file.os, "pwrite", full)
    model = network()
    told = r"every-step.f64 goes no further than step \d+, records go on: .*No space"
    recorder = Recorder(tmp_path / "run", model, None, every=1, quiet=True)
    with pytest.warns(RuntimeWarning, match=told), recorder:
        for batch in batches(BLOCK + 2):
            F.mse_loss(model(batch[0]), batch[1]).backward()
            with recorder.update(lr=0.1):
                pass
        assert recorder.active
    assert len(list((tmp_path / "run").glob("step-*"))) == BLOCK + 3
    with pytest.raises(OutputError, match="No space"):
        trained(tmp_path / "strict", BLOCK + 2, torch.optim.SGD)


def test_no_more_than_two_blocks_are_on_their_way() -> None:
    """Numbers on a device (here the processor's, as tensors) are handed on in order, a block later."""
    there: list[tuple[float, ...]] = []

    def write(step: int, rows: Any) -> None:
        assert step == len(there)
        there.extend(map(tuple, rows))

    rows = Rows(write)
    for step in range(200):
        assert step - len(there) <= 2 * BLOCK == 64
        rows.add(step, (torch.tensor(float(step)), 0.5, torch.tensor(math.inf), torch.tensor(2.0, dtype=torch.float64)))
    rows.flush()
    assert [row[0] for row in there] == list(range(200))
    assert math.isnan(there[7][2]) and there[7][1::2] == (0.5, 2.0)

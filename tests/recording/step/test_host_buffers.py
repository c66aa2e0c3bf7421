"""trajcheck.recording.step.host_buffers: memory is used again, and never while a record in it is on its way."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import assert_holds, batch_of, loss_of, network, read, recorded_steps, sgd, train, waiting_disk, weights

from trajcheck.recording.recorder import Recorder
from trajcheck.recording.run import background_writer as record_writer
from trajcheck.recording.step.host_buffers import HostBuffer, HostBuffers


def test_copies_are_contiguous_equal_and_lie_where_they_lay_before() -> None:
    buffers = HostBuffers()
    first = buffers.lend()
    tensor = torch.randn(3, 5).T
    copy = first.copy("a", tensor)
    assert copy.is_contiguous()
    assert torch.equal(copy, tensor)
    assert copy.data_ptr() != tensor.data_ptr()
    second = buffers.lend()
    assert second is not first
    assert second.copy("a", tensor).data_ptr() != copy.data_ptr()
    buffers.give_back(first)
    again = buffers.lend()
    assert again is first
    assert again.copy("a", 2 * tensor).data_ptr() == copy.data_ptr()
    assert torch.equal(copy, 2 * tensor)


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [(torch.randn(4, 2), None), (torch.randn(3, 5).double(), None), (torch.randn(3, 5), torch.bfloat16)],
)
def test_another_shape_or_dtype_is_another_copy(tensor: torch.Tensor, dtype: torch.dtype | None) -> None:
    buffer = HostBuffer()
    old = buffer.copy("a", torch.zeros(3, 5))
    new = buffer.copy("a", tensor, dtype)
    assert torch.equal(new, tensor if dtype is None else tensor.to(dtype))
    assert new.dtype == (dtype or tensor.dtype)
    assert not old.any()


def test_records_that_wait_for_the_disk_keep_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = waiting_disk(monkeypatch)
    model = network()
    optimizer = sgd(model, momentum=0.9)
    iterates, gradients = [], []
    with Recorder(tmp_path, model, optimizer, every=1, windows=True, strict=True, quiet=True) as recorder:

        def step(number: int) -> None:
            iterates.append(weights(model))
            loss = loss_of(model, batch_of(number))
            loss.backward()
            recorder.observe(batch_of(number), loss)
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            optimizer.step()
            optimizer.zero_grad()

        for number in range(1 + record_writer.QUEUE_LENGTH):
            step(number)
        disk.set()
        for number in range(3, 20):
            step(number)
    for number in range(20):
        tensors, _ = read(tmp_path, number)
        assert_holds(tensors, "param", iterates[number])
        assert_holds(tensors, "grad", gradients[number])
        if number:
            assert_holds(tensors, "window", gradients[number - 1])


def test_there_is_no_more_memory_than_records_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = HostBuffer.__init__

    def counted(self: HostBuffer) -> None:
        made.append(1)
        make(self)

    monkeypatch.setattr(HostBuffer, "__init__", counted)
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 40, recorder)
    assert len(recorded_steps(tmp_path)) == 41
    assert 1 <= len(made) <= record_writer.QUEUE_LENGTH + 2


def test_closing_gives_the_memory_up(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder:
        train(model, recorder._optimizer, 3, recorder)
        assert recorder._steps is not None
        buffer = weakref.ref(recorder._steps._of.vectors.buffer)
    gc.collect()
    assert buffer() is None


def test_a_step_that_failed_does_not_cost_a_buffer(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)

    def fail() -> Any:
        raise ZeroDivisionError

    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                optimizer.step(fail)
        train(model, optimizer, 3, recorder)
    assert recorded_steps(tmp_path) == [0, 1, 2, 3]
    assert_holds(read(tmp_path, 3)[0], "param", weights(model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies from a CUDA device need one")
@pytest.mark.parametrize("windows", [False, True])
def test_copies_from_a_cuda_device_are_complete_before_the_update(windows: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(8))).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True, foreach=True)
    iterates, gradients = [], []
    with Recorder(tmp_path, model, optimizer, every=1, windows=windows, strict=True, quiet=True) as recorder:
        for _ in range(6):
            batch = torch.randn(64, 1024, device="cuda")
            loss = model(batch).square().mean()
            loss.backward()
            recorder.observe(batch, loss)
            iterates.append({n: t.cpu() for n, t in weights(model).items()})
            gradients.append({n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None})
            optimizer.step()
            optimizer.zero_grad()
    for step in range(6):
        tensors, _ = read(tmp_path, step)
        assert_holds(tensors, "param", iterates[step])
        assert_holds(tensors, "grad", gradients[step])
    assert recorder.spent.records > 0

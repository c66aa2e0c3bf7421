"""What is done with a CUDA device and has no meaning on a CPU, where the same lines run and do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def wait(device: torch.device) -> None:
    """Until all that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """RuntimeError from any operation of torch that makes the thread wait for the device."""
    before = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(before)


@contextmanager
def stream_of_its_own(device: torch.device) -> Iterator[None]:
    """All of the block in another stream than the default one, as some trainings do."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def keep_busy(device: torch.device) -> None:
    """Work for some milliseconds, so that what comes after it in the stream is late."""
    size = 4096 if device.type == "cuda" else 64
    matrix = torch.ones(size, size, device=device)
    for _ in range(4):
        matrix = matrix @ matrix / size


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

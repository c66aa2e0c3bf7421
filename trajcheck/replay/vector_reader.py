"""Whole vectors from their extents to the replay's device, in memory that is used again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.torch_tensors import TORCH_DTYPES, read_tensor
from trajcheck.replay.residency import aligned


@dataclass(frozen=True)
class Loaded:
    """A vector on the device, as it was recorded; its tensors lie one after the other in `buffer`."""

    tensors: Mapping[str, Tensor]
    buffer: Tensor


class Buffers:
    """Memory of one device for whole vectors. Fresh memory would be mapped and zeroed anew for each of them.

    On a GPU a buffer that was given back may still be read there: whoever fills it next waits for that first.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._free: dict[int, list[tuple[Tensor, torch.cuda.Event | None]]] = {}
        self._lock = threading.Lock()

    def take(self, size: int) -> tuple[Tensor, torch.cuda.Event | None]:
        """So many bytes, and the event to wait for before they are written."""
        with self._lock:
            free = self._free.get(size)
            if free:
                return free.pop()
        return torch.empty(size, dtype=torch.uint8, device=self.device), self._now()

    def give(self, vector: Loaded) -> None:
        """Take a vector's memory back."""
        with self._lock:
            self._free.setdefault(vector.buffer.numel(), []).append((vector.buffer, self._now()))

    def _now(self) -> torch.cuda.Event | None:
        return torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None


class VectorReader:
    """Reads vectors into `buffers`; one a thread. On a GPU by way of one pinned buffer and a stream of its own."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers, self.device = buffers, buffers.device
        self.reader = ExtentReader()
        self._pinned: Tensor | None = None
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def __enter__(self) -> VectorReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.__exit__()

    def vector(self, tensors: Mapping[str, Extent], step: int | None = None) -> Loaded:
        """All the tensors. Raises StepFileError, with step and tensor, where one cannot be read."""
        places, size = {}, 0
        for name, extent in tensors.items():
            places[name] = size
            size += aligned(extent.length)
        buffer, event = self.buffers.take(size)
        if self._stream is None:
            self._fill(buffer, tensors, places, step)
        else:
            if self._pinned is None or self._pinned.numel() < size:
                self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._fill(self._pinned, tensors, places, step)
            with torch.cuda.stream(self._stream):
                if event is not None:
                    self._stream.wait_event(event)
                buffer.copy_(self._pinned[:size], non_blocking=True)
            self._stream.synchronize()  # only this thread, and the pinned memory is free again
        return Loaded({name: _view(buffer, places[name], extent) for name, extent in tensors.items()}, buffer)

    def tensor(self, extent: Extent) -> Tensor:
        """One tensor, in memory of its own on the host."""
        return read_tensor(self.reader, extent)

    def _fill(self, buffer: Tensor, tensors: Mapping[str, Extent], places: Mapping[str, int], step: int | None) -> None:
        memory = buffer.numpy().data
        for name, extent in tensors.items():
            try:
                self.reader.into(extent, 0, memory[places[name] : places[name] + extent.length])
            except StepFileError as error:
                where = "" if step is None else f"step {step}, "
                raise StepFileError(f"{where}tensor {name}: {error}") from error


def _view(buffer: Tensor, place: int, extent: Extent) -> Tensor:
    return buffer[place : place + extent.length].view(TORCH_DTYPES[extent.dtype]).reshape(extent.shape)

"""Host memory for the vectors of a record, used again by later ones: copying to fresh memory takes four times longer.

Of a CUDA device the copies go into pinned memory, in the stream that training uses, and no thread but the writer's
waits for them: the optimizer's kernels come after them in that stream, so x_t and g_t are copied before they change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class HostBuffers:
    """Lends memory for one record at a time. There is never more of it than there are records on their way: one that is
    taken, those that wait for the writer and the one that it writes."""

    def __init__(self) -> None:
        self._free: deque[HostBuffer] = deque()

    def lend(self) -> HostBuffer:
        try:
            return self._free.pop()
        except IndexError:
            return HostBuffer()

    def give_back(self, buffer: HostBuffer) -> None:
        self._free.append(buffer)

    def release(self) -> None:
        """Give up the memory that is not lent."""
        self._free.clear()


class HostBuffer:
    """Copies of named tensors; a name is copied to the same memory as the last time, where its shape is the same."""

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def copy(self, name: str, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A contiguous copy in host memory, in `dtype` if given; complete only after `wait()`."""
        tensor = tensor.detach()
        wanted = (tensor.shape, dtype or tensor.dtype)
        copy = self._tensors.get(name)
        if copy is None or (copy.shape, copy.dtype) != wanted:
            copy = torch.empty(tensor.shape, dtype=wanted[1], device="cpu", pin_memory=tensor.is_cuda)
            self._tensors[name] = copy
        return copy.copy_(tensor, non_blocking=tensor.is_cuda)

    @contextmanager
    def copying(self, devices: list[torch.device]) -> Iterator[None]:
        """Around copies from these CUDA devices, which must have been made in their current streams."""
        begun = [_event(device) for device in devices]
        yield
        self._spans += zip(begun, map(_event, devices), strict=True)

    def wait(self) -> float:
        """Until all copies are there; the seconds that devices spent on them."""
        spans, self._spans = self._spans, []
        for _, end in spans:
            end.synchronize()
        return sum(begin.elapsed_time(end) for begin, end in spans) / 1e3


def _event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event

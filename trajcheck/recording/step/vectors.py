"""x_t and g_t of the step that is being made, copied to host memory before the optimizer changes them."""

from __future__ import annotations

from collections.abc import Container

import torch

from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.recording.step.host_buffers import HostBuffer, HostBuffers
from trajcheck.recording.step.window_sums import Taken, WindowSums

Tensors = dict[str, torch.Tensor]


class StepVectors:
    """`iterate` and `gradients` are what was taken of this step; None: nothing yet.

    All goes into one buffer, which `hand_over()` gives away with the record. One that is not handed over, because the
    step failed or was interrupted, is used for the next.
    """

    def __init__(self, model: RecordedModel, grad_dtype: torch.dtype | None, buffers: HostBuffers) -> None:
        self._model, self._grad_dtype, self._buffers = model, grad_dtype, buffers
        self._buffer: HostBuffer | None = None
        self.iterate: Tensors | None = None
        self.gradients: Tensors | None = None

    @property
    def buffer(self) -> HostBuffer:
        if self._buffer is None:
            self._buffer = self._buffers.lend()
        return self._buffer

    def await_devices(self, spent: TimeSpent, *, forward: bool = False) -> None:
        """Until CUDA devices have caught up with training: reading a loss, or before a `forward` what is frozen and the
        buffers, waits for that in any case, and the time is no cost of the record."""
        if forward and not (self._model.frozen or self._model.buffers):
            return
        with spent.of_training():
            for device in self._model.cuda_devices:
                torch.cuda.current_stream(device).synchronize()

    def take_iterate(self) -> Tensors:
        with self.buffer.copying(self._model.cuda_devices):
            self.iterate = self._model.iterate(self.buffer.copy)
        return self.iterate

    def take_gradients(self, groups: Container[int] | None = None) -> Tensors:
        """Of all parameter groups, or of some beside those that were taken before."""
        with self.buffer.copying(self._model.cuda_devices):
            taken = self._model.gradients(self._grad_dtype, self.buffer.copy, groups)
        self.gradients = {**(self.gradients or {}), **taken}
        return self.gradients

    def has_gradients(self, groups: Container[int]) -> bool:
        """Whether those of these parameter groups were taken."""
        return any(f"grad/{p.name}" in (self.gradients or {}) for p in self._model.stored if p.group in groups)

    def take_window(self, windows: WindowSums, step: int) -> Taken:
        """The sums of the window that ends before `step`."""
        with self.buffer.copying(self._model.cuda_devices):
            return windows.take(step, self.buffer.copy)

    def forget(self) -> None:
        self.iterate = self.gradients = None

    def hand_over(self) -> HostBuffer:
        buffer, self._buffer = self.buffer, None
        return buffer

    def release(self) -> None:
        """No step comes after this one: give up all memory."""
        self.forget()
        self._buffer = None
        self._buffers.release()

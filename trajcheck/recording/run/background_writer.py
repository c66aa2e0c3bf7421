"""Writing records in a background thread, so that training waits only when the disk is slower than it for long."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import torch

from trajcheck.errors import OutputError
from trajcheck.files.torch_tensors import as_bytes
from trajcheck.readable import size_text
from trajcheck.recording.model.ranks import ALONE, Ranks
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.recording.step.host_buffers import HostBuffer, HostBuffers
from trajcheck.runs.formats.native.writing import step_filename, write_step

QUEUE_LENGTH = 2


@dataclass
class StepToWrite:
    """One step on its way to the disk: CPU tensors by their names in the file, complete after `buffer.wait()`, and its
    metadata."""

    step: int
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]
    buffer: HostBuffer  # that some of the tensors lie in

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class StoredBatch:
    """The batch of the run's first record; a later one that equals it to the byte is not stored again."""

    def __init__(self, step: int, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        self.step = step
        self._layout = self._key(tensors, metadata)
        self._digest = _digest(tensors)

    @staticmethod
    def _key(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Any:
        layout = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        return layout, *(metadata.get(key) for key in ("batch_tree", "micro_batches", "micro_weights"))

    def same(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> bool:
        return self._layout == self._key(tensors, metadata) and self._digest == _digest(tensors)


class BackgroundWriter:
    """Takes records and deletions in order; `error` is the first failure, after which nothing more is written."""

    def __init__(
        self,
        folder: Path,
        stored_batch: StoredBatch | None,
        buffers: HostBuffers,
        spent: TimeSpent,
        on_written: Callable[[int, int], None],
        ranks: Ranks = ALONE,
        foreign: Mapping[int, Sequence[Path]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` raises where nothing may be written into the folder any more."""
        self._check = check
        self._folder, self._stored_batch, self._on_written, self._ranks = folder, stored_batch, on_written, ranks
        self._foreign = foreign or {}  # files of earlier jobs with other numbers of ranks, to be deleted here
        self._buffers, self._spent = buffers, spent
        self._wrote_any = stored_batch is not None
        self._queue: Queue[StepToWrite | list[int] | None] = Queue(maxsize=QUEUE_LENGTH)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="trajcheck-writer", daemon=True)
        self._thread.start()

    def put(self, record: StepToWrite) -> None:
        """Hand over a record; waits while the queue is full."""
        self._queue.put(record)

    def delete(self, steps: list[int]) -> None:
        self._queue.put(steps)

    def flush(self) -> None:
        """Wait until all that was handed over is on the disk, or has failed."""
        self._queue.join()

    def close(self) -> None:
        """Finish what was handed over, and end the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if self.error is None:
                    self._take(item)
            except Exception as error:
                self.error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _take(self, item: StepToWrite | list[int]) -> None:
        if isinstance(item, StepToWrite):
            self._spent.stalled(item.buffer.wait())
            self._write(item)
            self._buffers.give_back(item.buffer)
        else:
            self._check()
            for step in item:
                self._delete(step)

    def _write(self, record: StepToWrite) -> None:
        self._share_batch(record)
        free = shutil.disk_usage(self._folder).free
        if free < 2 * record.bytes:
            raise OutputError(
                f"{self._folder}: {size_text(free)} are free on this disk, and step {record.step} needs "
                f"{size_text(record.bytes)} with as much again in reserve. Free some space or record fewer steps."
            )
        ranks = self._ranks
        self._check()
        path = write_step(self._folder, record.step, record.tensors, record.metadata, ranks.rank, ranks.count)
        self._on_written(record.step, path.stat().st_size)

    def _delete(self, step: int) -> None:
        own = self._folder / step_filename(step, self._ranks.rank, self._ranks.count)
        for path in (own, *self._foreign.get(step, ())):
            path.unlink(missing_ok=True)

    def _share_batch(self, record: StepToWrite) -> None:
        batch = batch_tensors(record.tensors)
        if not batch:
            return
        if self._stored_batch is not None:
            if self._stored_batch.same(batch, record.metadata):
                record.metadata["batch_from"] = self._stored_batch.step
                record.tensors = {n: t for n, t in record.tensors.items() if n not in batch}
        elif not self._wrote_any:
            self._stored_batch = StoredBatch(record.step, batch, record.metadata)
        self._wrote_any = True


def batch_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name == "batch" or name.startswith("batch/")}


def _digest(tensors: dict[str, torch.Tensor]) -> bytes:
    digest = hashlib.blake2b()
    for name in sorted(tensors):
        digest.update(as_bytes(tensors[name]))
    return digest.digest()

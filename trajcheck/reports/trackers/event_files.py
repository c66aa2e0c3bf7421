"""TensorBoard's event files, made whole in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from trajcheck.reports.trackers.tags import Tagged

#: What TensorBoard keeps of a scalar.
_KEPT = np.finfo(np.float32)


class EventFile(NamedTuple):
    """`content` is the file; it holds `values` under `tags`. `beyond` are those that a float32 cannot hold."""

    content: bytes
    tags: int
    values: int
    beyond: int


def event_file(columns: Iterable[Tagged], wall_time: float) -> EventFile:
    """All columns as scalars. Values whose size is out of float32's normal range are left out: as inf or 0 they would
    be others. `wall_time`, in seconds since 1970, is that of every event."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    records.write(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())
    by_step: dict[int, list[Summary.Value]] = {}
    tags = values = beyond = 0
    for each in columns:
        size = np.abs(each.values)
        held = (each.values == 0) | ((size >= _KEPT.tiny) & (size <= _KEPT.max))
        beyond += int((~held).sum())
        tags += bool(held.any())
        values += int(held.sum())
        for step, value in zip(each.steps[held].tolist(), each.values[held].tolist(), strict=True):
            by_step.setdefault(step, []).append(Summary.Value(tag=each.tag, simple_value=value))
    for step in sorted(by_step):
        event = Event(wall_time=wall_time, step=step, summary=Summary(value=by_step[step]))
        records.write(event.SerializeToString())
    return EventFile(buffer.getvalue(), tags, values, beyond)

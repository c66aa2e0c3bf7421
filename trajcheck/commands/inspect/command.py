"""What a path is: its format, its steps, what its records hold. Headers are read, and a few pieces of tensors."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from itertools import pairwise

from trajcheck.files.prints import file_size
from trajcheck.files.remote.address import as_path
from trajcheck.reports.making.inspection import Inspection
from trajcheck.runs.formats.recognise import open_run
from trajcheck.runs.formats.stored_run import PROGRAM
from trajcheck.runs.trajectory import Trajectory, trajectory_of


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """What a run, or an archive of checkpoints, holds, and what is wrong with its steps as far as headers tell.

    Memory is that of the headers. Raises RunError where a path holds no run, or none of its steps can be read.
    """
    stored = open_run(as_path(path))
    trajectory = trajectory_of(stored, skip_bad=True)
    snapshots, info = trajectory.snapshots, trajectory.info
    first = snapshots[0]
    log = stored.log()
    return Inspection(
        path=stored.path,
        format=stored.name,
        steps=tuple(trajectory.steps),
        left_out=dict(trajectory.left_out),
        files=len(files := stored.files()),
        bytes=_bytes(files),
        parameters=trajectory.numel,
        tensors=len(trajectory.shapes),
        dtypes=tuple(sorted(Counter(first.parameters[name].dtype for name in trajectory.shapes))),
        frozen=len(first.frozen),
        buffers=len(first.buffers),
        tied=len(info.tied),
        optimizer=info.optimizer,
        state=tuple(dict.fromkeys(name.partition("/")[0] for name in first.state)),
        losses=sum(each.loss is not None for each in snapshots),
        rates=sum(each.lr is not None for each in snapshots),
        times=sum(each.tau is not None for each in snapshots),
        gradients=sum(bool(each.gradients) for each in snapshots),
        batches=sum(each.has_batch for each in snapshots),
        probes=sum(probe.batches for probe in trajectory.probes),
        program=(stored.path / PROGRAM).is_file(),
        logged=0 if log is None else len(log.lr.keys() | log.loss.keys()),
        update_pairs=_pairs(trajectory),
        notes=tuple(info.notes),
    )


def _pairs(trajectory: Trajectory) -> int:
    """How many records are of consecutive steps."""
    steps = trajectory.steps
    return sum(after == before + 1 for before, after in pairwise(steps))


def _bytes(files: tuple[str, ...]) -> int:
    total = 0
    for file in files:
        with suppress(OSError):
            total += file_size(file)
    return total

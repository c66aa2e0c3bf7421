"""Where a run stops being finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trajcheck.errors import NotFiniteError, RunError
from trajcheck.files.extent_reader import BLOCK, ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.runs.logs.csv_log import read_csv_log
from trajcheck.runs.logs.log_choice import LogChoice
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory, open_trajectory


def not_finite(reader: ExtentReader, tensors: Mapping[str, Extent], names: Iterable[str]) -> str | None:
    """The first of some tensors that holds NaN or Inf, or None. Reads no further than that."""
    out = np.empty(BLOCK)
    for name in names:
        extent = tensors[name]
        for start in range(0, extent.numel, BLOCK):
            part = out[: min(BLOCK, extent.numel - start)]
            reader.widen(extent, start, part)
            if not np.isfinite(part).all():
                return name
    return None


def not_finite_in(reader: ExtentReader, snapshot: Snapshot, names: Iterable[str]) -> str | None:
    """`param/<name>`, `grad/<name>` or `window/<name>` of the first tensor that is not finite, or None.

    The gradient of a step that the loss scaler skipped was never used, and may hold Inf.
    """
    if name := not_finite(reader, snapshot.parameters, names):
        return f"param/{name}"
    if snapshot.gradients and not snapshot.skipped and (name := not_finite(reader, snapshot.gradients, names)):
        return f"grad/{name}"
    if snapshot.window_gradient and (name := not_finite(reader, snapshot.window_gradient, names)):
        return f"window/{name}"
    return None


def cut_at_divergence(trajectory: Trajectory) -> Trajectory:
    """The run up to where it ended in NaN or Inf, with `ended` saying so; the same run where it did not.

    Reads back from the end until a step is wholly finite: a healthy run costs the reading of one or two snapshots. A
    step with finite parameters whose gradient (or sum of gradients) is not is kept without it: it is the last finite
    iterate. Raises RunError when no step is finite.
    """
    snapshots = list(trajectory.snapshots)
    ended = None
    with ExtentReader() as reader:
        while snapshots:
            last = snapshots[-1]
            bad = not_finite_in(reader, last, trajectory.shapes)
            if bad is None:
                break
            ended = f"the run ends in NaN or Inf: step {last.step}, tensor {bad}"
            snapshots.pop()
            if not bad.startswith("param/") and (
                not snapshots or not_finite_in(reader, snapshots[-1], trajectory.shapes) is None
            ):
                if bad.startswith("grad/"):
                    snapshots.append(replace(last, gradients={}, batch={}, batch_from=None))
                else:
                    snapshots.append(replace(last, window=None, window_gradient={}))
    if not snapshots:
        raise RunError(f"{trajectory.path}: no step holds finite parameters ({ended}); there is nothing to analyze.")
    return replace(trajectory, snapshots=tuple(snapshots), ended=ended) if ended else trajectory


def find_bad_steps(trajectory: Trajectory) -> dict[int, str]:
    """Steps that hold NaN or Inf, with the tensor; reads the whole run."""
    bad = {}
    with ExtentReader() as reader:
        for snapshot in trajectory.snapshots:
            if tensor := not_finite_in(reader, snapshot, trajectory.shapes):
                bad[snapshot.step] = f"step {snapshot.step}, tensor {tensor}: holds NaN or Inf"
    return bad


def load_trajectory(run: Path, skip_bad: bool, log: LogChoice | None = None) -> Trajectory:
    """A run that is ready to be walked: headers checked, the end finite, and bad steps left out where asked for; rates
    and losses from the `log` that the user names."""
    named = None if log is None or log.file is None else read_csv_log(log.of_run(run))
    trajectory = cut_at_divergence(open_trajectory(run, skip_bad=skip_bad, log=named))
    return trajectory.without(find_bad_steps(trajectory)) if skip_bad else trajectory


def not_finite_error(snapshot: Snapshot, tensor: str) -> NotFiniteError:
    """That a tensor of a step, `param/<name>` and the like, holds NaN or Inf, and what to do about it."""
    return NotFiniteError(
        f"{snapshot.path}: step {snapshot.step}, tensor {tensor} holds NaN or Inf, in the middle of the run; expected "
        "finite numbers. --skip-bad leaves such steps out and lists them."
    )


def raise_not_finite(reader: ExtentReader, trajectory: Trajectory, places: Sequence[int]) -> None:
    """Find the NaN or Inf that spoilt what was made of some steps, the first of which is named, and raise
    NotFiniteError for it. Places beyond the run's ends are passed over."""
    for place in dict.fromkeys(places):
        if 0 <= place < len(trajectory.snapshots):
            snapshot = trajectory.snapshots[place]
            if tensor := not_finite_in(reader, snapshot, trajectory.shapes):
                raise not_finite_error(snapshot, tensor)
    raise NotFiniteError(
        f"{trajectory.path}: the inner products of step {trajectory.steps[places[0]]} overflow float64; its numbers "
        "are too large."
    )

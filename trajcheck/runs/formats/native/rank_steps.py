"""A step that several ranks wrote, as one snapshot.

Each rank's file holds what that rank had: its batch, losses and generator states, and pieces of the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from trajcheck.errors import StepFileError, UnevenStepError
from trajcheck.files.extents import Extent, Extents
from trajcheck.runs.formats.native.rank_batches import with_batches
from trajcheck.runs.formats.native.rank_pieces import Box, RankPieces
from trajcheck.runs.snapshot import Snapshot, Window

#: Norms that ranks computed of what must be equal on all of them differ by less.
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Share:
    """One rank's file of a step: a snapshot of what it holds, and where its pieces belong, by name in the file."""

    rank: int
    snapshot: Snapshot
    sections: Mapping[str, Extents]  # param, grad, window
    boxes: Mapping[str, Box]
    replicated: Mapping[str, float]  # norms of what should be equal on all ranks, by kind


def join(shares: Sequence[Share], shares_of: Callable[[int], Sequence[Share]]) -> Snapshot:
    """The step of these shares, in the order of their ranks; `shares_of` gives those of another step, by number.

    Raises StepFileError, naming file, step and tensor, where the shares do not make one step.
    """
    first = shares[0].snapshot
    closing = [share.snapshot for share in shares if share.snapshot.lr is None and not share.snapshot.gradients]
    made = [share.snapshot for share in shares if share.snapshot.lr is not None]
    if closing and made:
        raise UnevenStepError(
            f"{closing[0].path}: the rank ended its recording with step {first.step}, which other ranks made "
            f"({made[0].path}); expected that all ranks end with the same step."
        )
    equal = {"lr": "learning rates", "tau": "sums of rates", "groups": "settings"}
    for name, meaning in equal.items():
        for share in shares[1:]:
            _same(first, share.snapshot, name, meaning)
    _check_replicated(shares)
    snapshots = [share.snapshot for share in shares]
    frozen_from: dict[str, int] = {}
    for snapshot in snapshots:  # each says it of what it stores
        for name, step in snapshot.frozen_from.items():
            if frozen_from.setdefault(name, step) != step:
                raise StepFileError(
                    f"{snapshot.path}: metadata 'frozen_from' leaves {name or 'frozen parameters'} to step {step}, and "
                    f"another rank's file to step {frozen_from[name]}; expected the same frozen parameters on all "
                    "ranks."
                )
    modes = next((snapshot.modes for snapshot in snapshots if snapshot.modes is not None), None)
    for snapshot in snapshots:
        if snapshot.modes not in (None, modes):
            raise StepFileError(
                f"{snapshot.path}: metadata 'modes' is {snapshot.modes}, and {modes} in another rank's file; expected "
                "the same modules in evaluation on all ranks."
            )
    clips = [snapshot.clip for snapshot in snapshots]
    known = [clip for clip in clips if clip is not None and math.isclose(clip, clips[0] or 0.0, rel_tol=1e-5)]
    losses = [snapshot.loss for snapshot in snapshots if snapshot.loss is not None]
    window = _window(snapshots)
    whole = replace(
        first,
        parameters=_section("param", shares),
        gradients=_section("grad", shares),
        window_gradient={} if window is None else _section("window", shares),
        window=window,
        micro_gradients=None,  # those of one rank tell nothing of the others'
        frozen_from=frozen_from,
        modes=modes,
        loss=math.fsum(losses) / len(losses) if len(losses) == len(shares) else None,
        clip=clips[0] if len(known) == len(clips) else None,
        skipped=any(snapshot.skipped for snapshot in snapshots),
    )
    if whole.window is not None and not whole.window_gradient:
        raise StepFileError(f"{first.path}: metadata 'window' without tensors window/... in step {first.step}.")
    if not whole.parameters:
        raise StepFileError(f"{first.path}: no tensor 'param/...' in any file of step {first.step}.")
    return with_batches(whole, [share.snapshot for share in shares], lambda step, rank: _source(shares_of(step), rank))


def _source(shares: Sequence[Share], rank: int) -> Snapshot | None:
    return next((share.snapshot for share in shares if share.rank == rank), None)


def _section(section: str, shares: Sequence[Share]) -> Mapping[str, Extent]:
    """The tensors of a section; those of the one rank that stores any, where it stores them whole."""
    holders = [share for share in shares if share.sections[section]]
    if len(holders) == 1 and not holders[0].boxes:
        return holders[0].sections[section]
    try:
        return RankPieces(section, [share.sections[section] for share in shares], [share.boxes for share in shares])
    except ValueError as error:
        snapshot = shares[0].snapshot
        raise StepFileError(f"{snapshot.path} and the other ranks' files of step {snapshot.step}: {error}") from error


def _same(first: Snapshot, other: Snapshot, name: str, meaning: str) -> None:
    if getattr(first, name) != getattr(other, name):
        raise StepFileError(
            f"{other.path}: metadata {name!r} is {getattr(other, name)}, and {getattr(first, name)} in {first.path}; "
            f"expected the same {meaning} on all ranks."
        )


def _check_replicated(shares: Sequence[Share]) -> None:
    """What only the first rank stores must have been the same on all, or its gradient is not that of all batches."""
    for share in shares[1:]:
        for kind, norm in share.replicated.items():
            expected = shares[0].replicated.get(kind, norm)
            if not math.isclose(norm, expected, rel_tol=AGREEMENT):
                raise StepFileError(
                    f"{share.snapshot.path}: the norm of the {kind}s that rank 0 stores for all was {norm:.6g} here, "
                    f"and {expected:.6g} on rank 0. Ranks must train one model on averaged gradients: was the forward "
                    "pass that of the DistributedDataParallel module?"
                )


def _window(snapshots: Sequence[Snapshot]) -> Window | None:
    """Sums over pieces add up, and the loss is the mean over the ranks. None where a rank has none."""
    windows = [snapshot.window for snapshot in snapshots if snapshot.window is not None]
    if len(windows) < len(snapshots):
        return None
    first = windows[0]
    if any((w.start, w.steps) != (first.start, first.steps) for w in windows):
        raise StepFileError(f"{snapshots[0].path}: metadata 'window' is not that of the other ranks' files.")
    losses = [window.loss_sum for window in windows if window.loss_sum is not None]
    squares = [window.grad_sq_sum for window in windows if window.grad_sq_sum is not None]
    return Window(
        first.start,
        first.steps,
        math.fsum(window.grad_dot_offset for window in windows),
        math.fsum(losses) / len(losses) if len(losses) == len(windows) else None,
        math.fsum(squares) if len(squares) == len(windows) else None,
    )

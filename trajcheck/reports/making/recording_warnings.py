"""What a run says of its own recording: how it ended, what else than the optimizer moved it, what its steps lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from trajcheck.readable import some_of
from trajcheck.reports.making.warnings import other_draws
from trajcheck.runs.logs.run_log import MEAN
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.surroundings import frozen_changes, sampled_steps
from trajcheck.runs.trajectory import Trajectory

#: Share, and amount, by which a logged loss differs from the recorded one at the most where both are one: logs round.
SAME_LOSS, LEAST_LOSS = 1e-2, 1e-4


def recording_warnings(trajectory: Trajectory, *, replayed: bool = False) -> list[str]:
    """A sentence for each, in words of what was found; where steps are `replayed` on their own samples, what that does
    for their randomness is said with it."""
    ended = trajectory.info.ended
    found = [*trajectory.info.notes, ended.stopped if ended is not None else "", *_ascent(trajectory)]
    found += [*_start(trajectory), *_unseen(trajectory), *_trained(trajectory)]
    found += [*_frozen(trajectory), *_doubtful(trajectory)]
    found += [*_omitted(trajectory.snapshots, replayed), *_logged(trajectory)]
    return [warning for warning in found if warning]


def _start(trajectory: Trajectory) -> Iterable[str]:
    if (first := trajectory.steps[0]) > 0:
        yield f"x_0 is not in the run: init_dist and path_length are from its first record on, step {first}"


def _ascent(trajectory: Trajectory) -> Iterable[str]:
    if trajectory.settings.ascends:
        yield (
            f"{trajectory.info.optimizer} went up its gradients (maximize=True): losses and gradients are those of "
            "what it made larger, so a loss that rises is progress, rsi and cos are negative where the run goes "
            "towards x*, and convexity is that of what was maximized"
        )


def _unseen(trajectory: Trajectory) -> Iterable[str]:
    told = [snapshot.unseen for snapshot in trajectory.snapshots if snapshot.unseen is not None]
    if not told:
        return
    # a job that went on with the run has counted anew
    jobs = [before for before, after in pairwise(told) if after.times < before.times]
    times = sum(each.times for each in (*jobs, told[-1]))
    names = list(dict.fromkeys(name for each in told for name in each.tensors))
    more = max(each.changed for each in told) - len(names)
    what = f"{', '.join(names[:3])}{f' and {more} more' if more > 0 else ''}" if names else "parameters"
    steps = f"step {told[0].first}" if times == 1 else f"{times} steps, from {told[0].first} to {told[-1].last},"
    yield (
        f"before {steps} something else than {trajectory.info.optimizer or 'the optimizer'} changed {what}: x_t is not "
        "x_(t-1) and the recorded update there, and what is said of updates (update_corr, descent, loss_change, "
        "update_dot_ref, cos_floor) is left empty across them"
    )


def _trained(trajectory: Trajectory) -> Iterable[str]:
    """Where the set of trained parameters changes."""
    changes = []
    for before, after in pairwise(trajectory.snapshots):
        for names, what in ((before.held - after.held, "trained"), (after.held - before.held, "held fixed")):
            if names:
                changes.append(f"{some_of(sorted(names))} {what} from step {after.step} on")
    held = sum(bool(snapshot.held) for snapshot in trajectory.snapshots)
    if held:
        more = f"; and {len(changes) - 4} more changes" if len(changes) > 4 else ""
        which = "; ".join(changes[:4]) or some_of(sorted(trajectory.snapshots[0].held))
        yield (
            f"{held} steps do not train all parameters of the run: {which}{more}. Distances are over all that were "
            "ever trained, where they were held; a recorded gradient is 0 in those, as the optimizer used it, and "
            "one that is replayed is the loss's in all"
        )


def _frozen(trajectory: Trajectory) -> Iterable[str]:
    changes = frozen_changes(trajectory.snapshots)
    if changes:
        first = min(change.step for change in changes)
        most = max(change.times for change in changes)
        often = f"first at step {first}, and were stored anew {most} times" if most > 1 else f"at step {first}"
        yield (
            f"frozen parameters changed during the run, {often}: {some_of([change.name for change in changes])}. Each "
            "iterate is evaluated with those of its own step"
        )


def _doubtful(trajectory: Trajectory) -> Iterable[str]:
    """Steps at which it is not known what frozen parameters and buffers were, or only from samples."""
    for reason, count in Counter(each.unsure for each in trajectory.snapshots if each.unsure).items():
        yield f"{count} steps cannot be evaluated again: {reason}"
    if steps := sampled_steps(trajectory.snapshots):
        yield (
            f"at {len(steps)} steps, from {steps[0]} to {steps[-1]}, frozen parameters and buffers are known by their "
            "addresses, versions and samples alone, which a part that is written through .data may escape: recording "
            "ended, or something wrote them so, before they were read wholly once more"
        )


def _omitted(snapshots: Iterable[Snapshot], replayed: bool) -> Iterable[str]:
    told = [item for snapshot in snapshots for item in snapshot.omitted.items()]
    reasons = Counter((what, why) for what, why in told if what not in ("loss", "tau"))
    for (what, why), count in reasons.items():
        if what == "replay":
            yield f"{count} steps cannot be evaluated again: {why}"
        elif what == "targets":
            yield f"the targets of {count} steps may not be in the run: {why}"
        elif what != "randomness" or not replayed:
            yield f"the {what} of {count} steps is not in the run: {why}"


def _logged(trajectory: Trajectory) -> Iterable[str]:
    """What becomes of the losses of a log beside the run."""
    log = trajectory.log
    if log is None or not log.loss:
        return
    if log.loss_kind == MEAN:
        yield (
            f"the losses of {log.source} are means over the steps since the entry before, of no single iterate: none "
            "of them is taken for f(x_t; z_t)"
        )
        return
    known = [(each.loss, log.loss[each.step], each.step) for each in trajectory.snapshots if each.step in log.loss]
    other = [
        (abs(own - logged), own, logged, step)
        for own, logged, step in known
        if own is not None and abs(own - logged) > SAME_LOSS * max(abs(own), abs(logged)) + LEAST_LOSS
    ]
    if other:
        _, own, logged, step = max(other)
        yield (
            f"the losses of {log.source} are others than the recorded ones at {len(other)} of {len(known)} steps, most "
            f"at step {step}: {logged:.6g} there, {own:.6g} recorded, which is taken. The log may count its steps "
            "otherwise, or hold means over several"
        )


def causes(trajectory: Trajectory, randomness: Mapping[str, int]) -> list[str]:
    """What the run says of its steps by which a replay can differ from the training."""
    snapshots = trajectory.snapshots
    found = [
        f"{count} steps were made under autocast to {dtype}, and the replay does without"
        for dtype, count in Counter(each.autocast for each in snapshots if each.autocast).items()
    ]
    if unknown := sum(each.clip is None for each in snapshots):
        found.append(f"the gradients of {unknown} steps were clipped by an unknown factor")
    found += other_draws(randomness)
    if without := sum("targets" in each.omitted for each in snapshots):
        found.append(f"the batches of {without} steps are the model's inputs alone, without targets")
    if trajectory.info.unrecorded:
        found.append(f"the recording leaves out {some_of(trajectory.info.unrecorded)}")
    return found

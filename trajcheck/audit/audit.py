"""The audit of a run: headers, a sample of every tensor of every step, and what they say of one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from trajcheck.audit.contents import contents
from trajcheck.audit.continuity import continuity
from trajcheck.audit.equal import equal_steps, equal_tensors
from trajcheck.audit.findings import DAMAGE, Audit, Finding, in_order
from trajcheck.audit.layout import layout
from trajcheck.audit.positions import LEAST, WHOLE, Much
from trajcheck.audit.sampled import Samples, read_samples
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory

UNREADABLE = "unreadable"

#: What a quick audit looks at.
FEW, OWN, PAIRS = 128, 24, 20_000


def audit(trajectory: Trajectory, progress: Callable[[float], object] = lambda _: None, much: Much = WHOLE) -> Audit:
    """Look at so `much` of a run that is open. Raises nothing: a step that cannot be read is a finding."""
    samples = read_samples(trajectory.snapshots, trajectory.shapes, progress, much)
    return audit_of(trajectory, samples, each_tensor=much.least >= LEAST)


def quick_audit(trajectory: Trajectory) -> Audit:
    """What comes before every analysis, of bounded cost.

    Of a run that a Recorder wrote, each of whose files says under a checksum which step it is, a few elements of OWN
    tensors, all together; of others as of a whole audit, of so many tensors that steps times tensors are at most PAIRS.
    """
    if trajectory.info.versions:  # which a Recorder writes down
        much = Much(FEW, 0.0, OWN)
    else:
        much = Much(tensors=max(OWN, PAIRS // len(trajectory.snapshots)))
    return audit(trajectory, much=much)


def audit_of(
    trajectory: Trajectory, samples: Samples | None, more: Sequence[Finding] = (), each_tensor: bool = True
) -> Audit:
    """The findings from what was read."""
    found = [*more, *layout(trajectory.snapshots, trajectory.shapes, trajectory.info.thinned)]
    if samples is None:
        return Audit(in_order(found), steps=len(trajectory.steps))
    found += [Finding((step,), UNREADABLE, words, DAMAGE) for step, words in samples.unreadable.items()]
    found += contents(samples)
    equal = equal_steps(samples, _moves(trajectory.snapshots))
    rows = {step: row for row, step in enumerate(samples.steps)}
    bad = {rows[step] for each in (*found, *equal) if each.severity == DAMAGE for step in each.steps if step in rows}
    equal += equal_tensors(samples, bad)
    found += equal
    places = continuity(
        samples, {step for each in found if each.severity == DAMAGE for step in each.steps}, each_tensor
    )
    found += places.findings
    return Audit(
        in_order(_together(found, samples.steps)),
        len(samples.steps),
        len(samples.names),
        int(samples.counts.sum()) * len(samples.steps),
        samples.bytes,
        () if places.not_judged is None else (places.not_judged,),
    )


def _together(found: Sequence[Finding], steps: Sequence[int]) -> list[Finding]:
    """Findings that say the same of steps in a row as one."""
    places = {step: place for place, step in enumerate(steps)}
    kept: list[Finding] = []
    for each in sorted(found, key=lambda one: (one.finding, one.evidence, one.tensors, one.steps)):
        last = kept[-1] if kept else None
        alike = last and each.steps and last.steps and replace(last, steps=each.steps) == each
        if last and alike and places.get(each.steps[0], -9) == places.get(last.steps[-1], -5) + 1:
            kept[-1] = replace(last, steps=(*last.steps, *each.steps))
        else:
            kept.append(each)
    return kept


def _moves(snapshots: Sequence[Snapshot]) -> dict[int, bool]:
    """Of the steps whose rates are known, whether the update after them moves."""
    found = {}
    for snapshot in snapshots:
        if snapshot.skipped:
            found[snapshot.step] = False
        elif snapshot.lr is not None:
            found[snapshot.step] = bool(np.any(np.array(snapshot.lr) != 0))
    return found

"""A run that is opened to be measured, audited: damage is said before a number is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trajcheck.audit.audit import UNREADABLE, quick_audit
from trajcheck.audit.contents import NOT_FINITE
from trajcheck.audit.continuity import ANCESTRY, MISPLACED, STRANGER, SWAPPED
from trajcheck.audit.equal import EQUAL, STALE
from trajcheck.audit.findings import DAMAGE, SUSPICIOUS, Audit, Finding, in_order, in_words
from trajcheck.audit.layout import STATE
from trajcheck.errors import RunError
from trajcheck.readable import some_of
from trajcheck.runs.divergence import load_trajectory
from trajcheck.runs.logs.log_choice import LogChoice
from trajcheck.runs.trajectory import Trajectory

#: What of the places of steps a Recorder's run cannot have got wrong on the disk: each file says its step under a
#: checksum, so that such a thing is an event of the training, as weights that were rewound to those of an earlier step.
OF_PLACES = (EQUAL, STALE, MISPLACED, SWAPPED, STRANGER, ANCESTRY)
#: What the pass itself finds and names, where it reads such a step, and what it does not read.
OF_THE_PASS = (UNREADABLE, NOT_FINITE, STATE)


def load_audited(run: Path, skip_bad: bool, log: LogChoice | None = None) -> tuple[Trajectory, Audit]:
    """A run that is ready to be walked, and what its audit found; without the steps in which that found damage, where
    they may be left out. Raises RunError where they may not."""
    trajectory = load_trajectory(run, skip_bad, log)
    found = quick_audit(trajectory)
    if "trajcheck" in trajectory.info.versions:
        found = replace(found, findings=in_order(list(map(_of_training, found.findings))))
    bad: dict[int, str] = {}
    for each in found.damage:
        if each.finding not in OF_THE_PASS:
            bad.update((step, in_words(each)) for step in each.steps if step not in bad)
    bad = {step: bad[step] for step in trajectory.steps if step in bad}
    if bad and not skip_bad:
        raise RunError(
            f"{run}: the audit found damage in {len(bad)} of {len(trajectory.steps)} steps: "
            f"{'; '.join(dict.fromkeys(list(bad.values())[:3]))}. trajcheck verify says all; --skip-bad goes on "
            "without these steps and lists them."
        )
    return (trajectory.without(bad) if bad else trajectory), found


def _of_training(finding: Finding) -> Finding:
    """As a Recorder's run has it."""
    placed = finding.severity == DAMAGE and finding.finding in OF_PLACES
    return replace(finding, severity=SUSPICIOUS) if placed else finding


def audit_warnings(audit: Audit) -> list[str]:
    """What the audit found that is not damage, and not ordinary."""
    return [f"audit: {in_words(each)}{_tensors(each)}" for each in audit.of(SUSPICIOUS)]


def _tensors(finding: Finding) -> str:
    return f" ({some_of(finding.tensors)})" if finding.tensors else ""

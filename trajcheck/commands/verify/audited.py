"""What reading whole files showed, and what the audit of a sample shows, as one list of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from trajcheck.audit.against import against
from trajcheck.audit.audit import UNREADABLE, audit_of
from trajcheck.audit.confirm import confirmed
from trajcheck.audit.contents import NOT_FINITE
from trajcheck.audit.findings import DAMAGE, NOTE, Audit, Finding, in_order
from trajcheck.audit.sampled import Samples, read_samples
from trajcheck.errors import RunError
from trajcheck.runs.formats.stored_run import StoredRun
from trajcheck.runs.formats.verification import RunVerification
from trajcheck.runs.trajectory import Trajectory, open_trajectory

#: What reading files from the first byte to the last shows: checksums, headers, files that are missing.
FILES = "files"

Opened = tuple[Trajectory, Samples | None]


def audited(
    run: RunVerification, stored: StoredRun, others: Mapping[str, Opened], progress: Callable[[float], object]
) -> Audit:
    """All findings about a run of which the files were read; what opening it says is added to its `damage`."""
    trajectory = _fit(run, stored)
    files = list(_of_files(run, stored))
    if trajectory is None:
        return Audit(in_order(files))
    samples = read_samples(trajectory.snapshots, trajectory.shapes, progress)
    more = list(_from_others(trajectory, samples, others))
    found = confirmed(audit_of(trajectory, samples, more), trajectory, _listed(stored))
    told = {step for each in files if each.severity == DAMAGE for step in each.steps}
    ends = any("ends in NaN" in note for note in run.notes)
    rest = [
        each
        for each in found.findings
        if each.finding not in (UNREADABLE, NOT_FINITE)
        or not (told.issuperset(each.steps) or (ends and each.severity == NOTE))
    ]
    return Audit(in_order([*files, *rest]), found.steps, found.tensors, found.sampled, found.bytes, found.not_judged)


def opened(path: str) -> Opened:
    """Another run, to hold a run against. Raises RunError."""
    from pathlib import Path

    trajectory = open_trajectory(Path(path), skip_bad=True)
    return trajectory, read_samples(trajectory.snapshots, trajectory.shapes)


def _listed(stored: StoredRun) -> Mapping[int, str]:
    with suppress(RunError):
        return stored.listed_hashes()
    return {}


def _fit(run: RunVerification, stored: StoredRun) -> Trajectory | None:
    """The run where it can be opened; whether its steps fit together, as far as nothing else is said of them."""
    try:
        if any(step.missing is None for step in stored.steps().values()):
            trajectory = open_trajectory(stored.path, skip_bad=True)
            run.damage += [reason for step, reason in trajectory.left_out.items() if step not in run.told]
            return trajectory
    except RunError as error:
        if not run.damage:  # else it says again what was said
            run.damage.append(str(error))
    return None


def _of_files(run: RunVerification, stored: StoredRun) -> Iterator[Finding]:
    """What was said of files, by the steps whose files they are."""
    step_of: dict[str, int] = {}
    with suppress(RunError):
        step_of = {file: step.step for step in stored.steps().values() for file in step.files}
    for severity, texts in ((DAMAGE, run.damage), (NOTE, run.notes)):
        for text in texts:
            file = next((file for file in step_of if text.startswith(f"{file}:")), None)
            steps = () if file is None else (step_of[file],)
            yield Finding(steps, FILES, text if file is None else text.removeprefix(f"{file}:").strip(), severity)


def _from_others(trajectory: Trajectory, samples: Samples | None, others: Mapping[str, Opened]) -> Iterator[Finding]:
    for name, (other, theirs) in others.items():
        if other.path.resolve() == trajectory.path.resolve():
            continue
        if samples is None or theirs is None or dict(trajectory.shapes) != dict(other.shapes):
            yield Finding((), "not compared", f"{name} has other tensors, or none that can be read", NOTE, of=name)
            continue
        yield from against(samples, _in_order(theirs, samples.names), name)


def _in_order(theirs: Samples, names: Sequence[str]) -> Samples:
    """Those of another run, whose tensors stand in the same order where its shapes are the same."""
    if theirs.names != tuple(names):
        raise RunError(f"its tensors stand in another order ({theirs.names[0]}, ... and {names[0]}, ...).")
    return theirs

"""Steps that come from another run: that descend from its step 0, or lie on its path."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trajcheck.audit.findings import DAMAGE, NOTE, SUSPICIOUS, Finding
from trajcheck.audit.kinship import kept
from trajcheck.audit.places import NEARER
from trajcheck.audit.sampled import Samples

OTHER_RUN, DESCENT, SAME_START = "of another run", "descends from another run", "same step 0"

#: The part of another run's step 0 from which a step descends from it.
PART = 0.1


def against(samples: Samples, other: Samples, name: str) -> list[Finding]:
    """Findings about steps of a run; `other` has the same tensors, and is called `name`."""
    distances = _distances(samples, other)
    same = bool((samples.prints[0] == other.prints[0]).all())
    if same:
        found = list(_copies(samples, other, name, distances))
        words = f"the first steps of both are equal: descent tells the runs apart in no step ({name})"
        return [*found, Finding((samples.steps[0],), SAME_START, words, NOTE, belongs_to=other.steps[0], of=name)]
    found = _on_its_path(samples, other, name, distances)
    told = {step for each in found for step in each.steps}
    for row, step in enumerate(samples.steps):
        if step in told or not samples.finite[row].all():
            continue
        own, theirs = kept(samples, 0, row), kept(samples, 0, row, other)
        if theirs.part < max(PART, 6 * theirs.width) or (row and theirs.part < 2 * own.part):
            continue
        words = (
            f"holds {theirs.part:.2f} +- {theirs.width:.2f} of step {other.steps[0]} of {name}, and {own.part:.2f} +- "
            f"{own.width:.2f} of the run's own step {samples.steps[0]}"
        )
        severity = DAMAGE if own.none or not row else SUSPICIOUS
        nearest = other.steps[int(np.argmin(distances[row]))]
        found.append(Finding((step,), DESCENT, words, severity, belongs_to=nearest, of=name))
    return found


def _copies(samples: Samples, other: Samples, name: str, distances: np.ndarray) -> Iterator[Finding]:
    """Of two runs of one initialization, which lie near one another: steps that are the other's of another number."""
    for row in range(1, len(samples.steps)):
        nearest = int(np.argmin(distances[row]))
        there = other.steps[nearest]
        if there != samples.steps[row] and (samples.prints[row] == other.prints[nearest]).all():
            words = f"all sampled elements are those of step {there} of {name}"
            yield Finding((samples.steps[row],), OTHER_RUN, words, DAMAGE, belongs_to=there, of=name)


def _on_its_path(samples: Samples, other: Samples, name: str, distances: np.ndarray) -> list[Finding]:
    """Steps that are much nearer to one of the other run's than to the steps beside them, where the runs are apart."""
    steps = ((samples.moved[1:].astype(float) - samples.moved[:-1]) ** 2).sum(axis=1)
    beside = np.minimum(np.append(steps, np.inf), np.append(np.inf, steps))
    near = distances.min(axis=1)
    rows = np.flatnonzero((near * NEARER < beside) & samples.finite.all(axis=1))
    if len(rows) > len(samples.steps) / 2:
        words = f"{len(rows)} of {len(samples.steps)} steps lie on the path of {name}: it is the same run"
        return [Finding((), OTHER_RUN, words, NOTE, of=name)]
    found = []
    for row in rows:
        nearest = int(np.argmin(distances[row]))
        equal = bool((samples.prints[row] == other.prints[nearest]).all())
        if row == 0 and equal:
            continue  # which two runs of one initialization share
        there = other.steps[nearest]
        times = np.sqrt(beside[row] / near[row]) if near[row] else np.inf
        words = (
            f"all sampled elements are those of step {there} of {name}"
            if equal
            else f"{times:.3g} times nearer to step {there} of {name} than to the steps beside it"
        )
        found.append(Finding((samples.steps[int(row)],), OTHER_RUN, words, DAMAGE, belongs_to=there, of=name))
    return found


def _distances(samples: Samples, other: Samples) -> np.ndarray:
    """Squared distances of the steps of two runs."""
    apart = samples.sketch(samples.first - other.first)
    here = samples.moved.astype(float) + apart
    there = other.moved.astype(float)
    squares = (here**2).sum(axis=1)[:, None] + (there**2).sum(axis=1)[None, :]
    found = np.maximum(squares - 2 * here @ there.T, 0.0)
    for i, j in np.argwhere(found < 1e-9 * squares):
        equal = (samples.prints[i] == other.prints[j]).all()
        found[i, j] = 0.0 if equal else ((here[i] - there[j]) ** 2).sum()
    return found

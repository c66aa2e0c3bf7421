"""What headers show: dtypes that change, optimizer states that are missing or of another shape, missing steps."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from trajcheck.audit.findings import DAMAGE, NOTE, SUSPICIOUS, Finding
from trajcheck.files.extents import Extents
from trajcheck.readable import some_of
from trajcheck.runs.snapshot import Snapshot

DTYPE, STATE, MISSING = "dtype", "optimizer state", "missing steps"

#: The share of gaps that are alike where a run is said to be spaced evenly, and the fewest of them.
REGULAR, GAPS = 0.8, 6
#: The widest hole in which steps are called missing, in usual gaps.
MOST_LOST = 100


def layout(
    snapshots: Sequence[Snapshot], shapes: Mapping[str, tuple[int, ...]], thinned: bool = False
) -> list[Finding]:
    """Findings from headers alone."""
    found = [*_dtypes(snapshots, shapes), *_states(snapshots, shapes)]
    return found if thinned else [*found, *missing_steps([snapshot.step for snapshot in snapshots])]


def _dtypes(snapshots: Sequence[Snapshot], shapes: Mapping[str, tuple[int, ...]]) -> list[Finding]:
    """Tensors whose dtype differs from that of most steps."""
    held: dict[tuple[str, ...], list[int]] = defaultdict(list)
    known: dict[int, tuple[object, tuple[str, ...]]] = {}  # by layouts, which many steps share
    for snapshot in snapshots:
        tensors = snapshot.parameters
        kept = tensors.layout[0] if isinstance(tensors, Extents) else tensors
        if id(kept) not in known:
            known[id(kept)] = kept, tuple(tensors[name].dtype for name in shapes)
        held[known[id(kept)][1]].append(snapshot.step)
    if len(held) < 2:
        return []
    usual = max(held, key=lambda each: len(held[each]))
    found = []
    for dtypes, steps in held.items():
        if dtypes == usual:
            continue
        names = tuple(name for name, a, b in zip(shapes, dtypes, usual, strict=True) if a != b)
        first = list(shapes).index(names[0])
        words = f"{some_of(names)}: {dtypes[first]}, and {usual[first]} in {len(held[usual])} other steps"
        found.append(Finding(tuple(sorted(steps)), DTYPE, words, SUSPICIOUS, names))
    return found


def _states(snapshots: Sequence[Snapshot], shapes: Mapping[str, tuple[int, ...]]) -> list[Finding]:
    """Optimizer states that other steps have, and those of another shape than there, or than their parameter."""
    found = []
    held = {snapshot.step: {key: extent.shape for key, extent in snapshot.state.items()} for snapshot in snapshots}
    having = [step for step, each in held.items() if each]
    lacking = tuple(step for step, each in held.items() if not each and having and having[0] < step < having[-1])
    if lacking and len(having) > len(lacking):
        words = f"there is no optimizer state, as {len(having)} other steps have it"
        found.append(Finding(lacking, STATE, words, SUSPICIOUS))
    counts: dict[str, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for each in held.values():
        for key, shape in each.items():
            counts[key][shape] += 1
    usual = {key: each.most_common(1)[0][0] for key, each in counts.items() if each.total() > len(having) / 2}
    for step in having:
        each = held[step]
        differ = [key for key, shape in usual.items() if each.get(key, shape) != shape]
        wrong = [f"{key} {list(each[key])} for {list(usual[key])}" for key in differ]
        if wrong:
            found.append(Finding((step,), STATE, f"states of another shape: {some_of(wrong)}", DAMAGE))
        if gone := [key for key in usual if key not in each]:
            found.append(Finding((step,), STATE, f"states are missing: {some_of(gone)}", SUSPICIOUS))
    odd = [key for key, shape in usual.items() if not _fits(shape, shapes.get(key.partition("/")[2], shape))]
    if odd:
        words = f"in most steps of another shape than their parameters: {some_of(odd)}"
        found.append(Finding((), STATE, words, NOTE))
    return found


def _fits(state: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a state is one number, or of a parameter's shape, or of its rows or columns, as Adafactor has it."""
    factored = len(state) < len(shape) and all(length in (1, *shape) for length in state)
    return math.prod(state) == 1 or state == shape or factored


def missing_steps(steps: Sequence[int]) -> list[Finding]:
    """Gaps of several times the distance that nearly all steps have."""
    gaps = [b - a for a, b in pairwise(steps)]
    if len(gaps) < GAPS:
        return []
    usual, count = Counter(gaps).most_common(1)[0]
    if count < REGULAR * len(gaps):
        return []
    found = []
    for place in range(1, len(gaps) - 1):
        gap, around = gaps[place], (gaps[place - 1], gaps[place + 1])
        # where the spacing changed the wide gaps stand together, or at an end; a hole has usual ones on both sides
        if around == (usual, usual) and usual < gap <= MOST_LOST * usual and gap % usual == 0:
            lost = tuple(range(steps[place] + usual, steps[place + 1], usual))
            ends = f"{steps[place]} and {steps[place + 1]}"
            words = f"none between {ends}, where {count} of {len(gaps)} gaps are of {usual} steps"
            found.append(Finding(lost, MISSING, words, SUSPICIOUS))
    return found

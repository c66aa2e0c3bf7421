"""What the sampled elements of single tensors show: NaN or Inf, zeros where there were numbers, no movement."""

from __future__ import annotations

import numpy as np

from trajcheck.audit.findings import DAMAGE, NOTE, SUSPICIOUS, Finding
from trajcheck.audit.sampled import Samples
from trajcheck.readable import some_of

NOT_FINITE, ZEROS, HOLES, FROZEN = "not finite", "zeros", "holes", "frozen"


def contents(samples: Samples) -> list[Finding]:
    """What each tensor's own elements show."""
    return [*_not_finite(samples), *_zeros(samples), *_holes(samples), *_frozen(samples)]


def _names(samples: Samples, tensors: np.ndarray) -> tuple[str, ...]:
    return tuple(samples.names[int(tensor)] for tensor in tensors)


def _not_finite(samples: Samples) -> list[Finding]:
    """A run may end in NaN or Inf; before that they are damage."""
    bad = ~samples.finite.all(axis=1)
    good = np.flatnonzero(~bad)
    last = int(good[-1]) if len(good) else -1
    found = []
    for row in np.flatnonzero(bad):
        names = _names(samples, np.flatnonzero(~samples.finite[row]))
        ends = int(row) > last
        words = f"NaN or Inf in {some_of(names)}" + ("; the run ends so" if ends else "")
        found.append(Finding((samples.steps[int(row)],), NOT_FINITE, words, NOTE if ends else DAMAGE, names))
    return found


def _zeros(samples: Samples) -> list[Finding]:
    """A tensor that held numbers, and holds zeros alone; to the end, it may have been pruned or decayed."""
    found: dict[tuple[int, str], list[int]] = {}
    for tensor in range(len(samples.names)):
        zero = samples.zeros[:, tensor]
        held = np.flatnonzero(~zero)
        if not len(held) or not zero[held[0] :].any():
            continue
        rows = held[0] + np.flatnonzero(zero[held[0] :])
        for row in rows:
            to_the_end = row > held[-1]
            found.setdefault((int(row), NOTE if to_the_end and len(rows) > 1 else DAMAGE), []).append(tensor)
    result = []
    for (row, severity), tensors in sorted(found.items()):
        names = _names(samples, np.array(tensors))
        last = row == len(samples.steps) - 1
        kind = SUSPICIOUS if severity == DAMAGE and last and len(tensors) < len(samples.names) else severity
        words = f"{len(names)} of {len(samples.names)} tensors hold zeros alone, and held numbers before"
        result.append(Finding((samples.steps[row],), ZEROS, words, kind, names))
    return result


def _holes(samples: Samples) -> list[Finding]:
    """Stretches of zeros in a tensor of numbers, where the steps beside it have numbers."""
    if len(samples.steps) < 2:
        return []
    zero = samples.range_zero & samples.range_long
    before = np.vstack([zero[1:2], zero[:-1]])
    after = np.vstack([zero[1:], zero[-2:-1]])
    found = []
    for row in np.flatnonzero((zero & ~before & ~after).any(axis=1)):
        ranges = np.flatnonzero(zero[row] & ~before[row] & ~after[row])
        tensors = np.array(
            [tensor for tensor in np.unique(samples.range_tensor[ranges]) if not samples.zeros[row, tensor]], int
        )
        if len(tensors):
            names = _names(samples, tensors)
            words = f"stretches of zeros in {some_of(names)}, where the steps beside it have numbers"
            found.append(Finding((samples.steps[int(row)],), HOLES, words, DAMAGE, names))
    return found


def _frozen(samples: Samples) -> list[Finding]:
    still = np.flatnonzero(~samples.moves)
    if not len(still) or len(still) == len(samples.names) or len(samples.steps) < 2:
        return []
    names = _names(samples, still)
    words = f"{len(names)} of {len(samples.names)} tensors never change: {some_of(names)}"
    return [Finding((), FROZEN, words, NOTE, names)]

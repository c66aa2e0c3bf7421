"""Steps, and tensors of steps, whose content is that of another step.

Equal samples, or equal hashes from a listing, of steps between which the weights differ are one content under two
numbers. Of steps in a row they may be a plateau: a rate of 0, updates that a loss scaler skipped, a run that stands
still. Rates decide where they are known; else whether the run then moves twice as far in the next gap as it should, as
it does where a step was stored in place of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from trajcheck.audit.findings import DAMAGE, NOTE, SUSPICIOUS, Finding
from trajcheck.audit.sampled import Samples

EQUAL, PLATEAU, STALE, RECUR = "equal content", "plateau", "stale tensors", "iterates recur"

#: A gap is that of two steps from this share of twice a usual one on: sqrt(2) of noise, 2 of a straight path.
TWICE = 1.25
#: The most that the gaps around differ for that.
STEADY = 2.0
#: The most that content in its place is off (1 of independent points).
PLACE = 2.0
#: Of fewer changed elements it is no wonder that a tensor comes back to what it was, as in low precision.
CHANGED = 32


def equal_steps(samples: Samples, moves: Mapping[int, bool]) -> list[Finding]:
    """Findings about whole steps; `moves` says of steps whose rates are known whether the update after one moves."""
    groups: dict[bytes, list[int]] = {}
    for row, each in enumerate(samples.prints):
        if not samples.finite[row].all():
            continue  # NaN is no content
        groups.setdefault(each.tobytes(), []).append(row)
    blocks = {key: _in_a_row(rows) for key, rows in groups.items() if len(rows) > 1}
    back = {key: each for key, each in blocks.items() if len(each) > 1}
    found: list[Finding] = []
    if len(back) > 1 and len(back) >= 0.8 * len(groups):
        steps = tuple(samples.steps[row] for each in back.values() for block in each for row in block)
        words = f"{len(groups)} different contents in {len(samples.steps)} steps, most of them several times"
        found.append(Finding(tuple(sorted(steps)), RECUR, words, NOTE))
        back = {}
    for each in back.values():
        found += _came_back(samples, each, list(range(len(samples.names))), EQUAL)
    for key, each in blocks.items():
        if key in back:
            each = [block for block in each if _is_right(samples, each, block)]
        found += [_plateau(samples, block, moves) for block in each if len(block) > 1]
    return found


def equal_tensors(samples: Samples, told: set[int]) -> list[Finding]:
    """Tensors that come back to what they were in another step, while the step as a whole does not."""
    by_pair: dict[tuple[int, int], list[int]] = {}
    for tensor in np.flatnonzero(samples.moves):
        prints = samples.prints[:, tensor]
        order = np.argsort(prints, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(prints[order])) + 1):
            blocks = _in_a_row(sorted(int(row) for row in rows))
            if len(blocks) < 2 or len(blocks) > 4:
                continue
            right = _right(samples, blocks, [int(tensor)])
            for block in blocks:
                apart = samples.changed[min(block[0], right[0]) + 1 : max(block[0], right[0]) + 1, tensor]
                if block is not right and apart.max(initial=0) >= CHANGED:
                    for row in block:
                        by_pair.setdefault((row, min(right, key=lambda r: abs(r - row))), []).append(int(tensor))
    found = []
    for (row, other), tensors in sorted(by_pair.items()):
        if row in told:
            continue
        apart = samples.changed[min(row, other) + 1 : max(row, other) + 1].max(axis=0) > 0
        small = (samples.counts < CHANGED) & apart & (samples.prints[row] == samples.prints[other])
        together = sorted({*tensors, *map(int, np.flatnonzero(small))})  # small ones alone would prove nothing
        names = tuple(samples.names[tensor] for tensor in together)
        step = samples.steps[other]
        words = f"{len(names)} of {len(samples.names)} tensors hold what step {step} holds, and not what lies between"
        found.append(Finding((samples.steps[row],), EQUAL, words, DAMAGE, names, step))
    return [*found, *_stale(samples, told)]


def _stale(samples: Samples, told: set[int]) -> list[Finding]:
    """Tensors that stand still in this one gap alone, while others move, and are then a step of two gaps behind."""
    changed = samples.changed > 0
    changed[0] = True
    found: dict[int, list[int]] = {}
    for tensor in np.flatnonzero(samples.moves):
        still = np.flatnonzero(~changed[:, tensor])
        if len(still) != 1 or samples.changed[:, tensor].max() < CHANGED:
            continue
        row = int(still[0])
        around = samples.changed[max(1, row - 3) : row + 4, tensor]
        often = np.sort(around)[1:].min(initial=CHANGED) >= CHANGED  # not one that seldom moves
        if changed[row].any() and often and _twice(samples, row - 1, row, [int(tensor)]):
            found.setdefault(row, []).append(int(tensor))
    result = []
    for row, tensors in sorted(found.items()):
        pair = {row - 1, row} & told
        if pair:
            continue
        names = tuple(samples.names[tensor] for tensor in tensors)
        words = (
            f"{len(names)} of {len(samples.names)} tensors are those of step {samples.steps[row - 1]}, while others "
            "moved; they move in every other gap, and by twice as much beside this one"
        )
        result.append(Finding((samples.steps[row],), STALE, words, SUSPICIOUS, names, samples.steps[row - 1]))
    return result


def _in_a_row(rows: Sequence[int]) -> list[list[int]]:
    blocks = [[rows[0]]]
    for before, row in pairwise(rows):
        if row == before + 1:
            blocks[-1].append(row)
        else:
            blocks.append([row])
    return blocks


def _came_back(samples: Samples, blocks: list[list[int]], tensors: list[int], kind: str) -> list[Finding]:
    """Of equal contents one stands where it belongs; where none or several do, all are told."""
    right = _right(samples, blocks, tensors)
    found = []
    for block in blocks:
        if block is right and not _undecided(samples, blocks, tensors):
            continue
        others = [other for other in blocks if other is not block]
        nearest = right if right is not block else others[0]
        row = min(nearest, key=lambda each: abs(each - block[0]))
        between = range(min(block[-1], row) + 1, max(block[0], row))
        words = (
            f"all sampled elements are those of step {samples.steps[row]}, and {len(between)} other steps lie between"
        )
        found.append(
            Finding(tuple(samples.steps[r] for r in block), kind, words, DAMAGE, belongs_to=samples.steps[row])
        )
    return found


def _is_right(samples: Samples, blocks: list[list[int]], block: list[int]) -> bool:
    return block is _right(samples, blocks, list(range(len(samples.names))))


def _right(samples: Samples, blocks: list[list[int]], tensors: list[int]) -> list[int]:
    costs = [_cost(samples, block, {row for each in blocks for row in each}, tensors) for block in blocks]
    return blocks[int(np.argmin(costs))]


def _undecided(samples: Samples, blocks: list[list[int]], tensors: list[int]) -> bool:
    costs = sorted(_cost(samples, block, {row for each in blocks for row in each}, tensors) for block in blocks)
    return costs[0] * 1.5 > costs[1] or costs[0] > PLACE


def _cost(samples: Samples, block: list[int], group: set[int], tensors: list[int]) -> float:
    """How far the content is out of place: its way to the neighbours over that between them, 1/2 of a random walk."""
    before = next((row for row in range(block[0] - 1, -1, -1) if row not in group), None)
    after = next((row for row in range(block[-1] + 1, len(samples.steps)) if row not in group), None)
    if before is not None and after is not None:
        way = _far(samples, before, after, tensors)
        sides = (_far(samples, before, block[0], tensors) + _far(samples, block[-1], after, tensors)) / 2
    else:  # at an end: beside the next gap
        one, step = (after, 1) if after is not None else (before, -1)
        assert one is not None
        two = next((row for row in _towards(one + step, step, len(samples.steps)) if row not in group), one)
        way, sides = _far(samples, one, two, tensors), _far(samples, block[0], one, tensors) / 2
    return sides / way if way else (np.inf if sides else 0.0)


def _towards(first: int, step: int, stop: int) -> range:
    return range(first, stop) if step > 0 else range(first, -1, -1)


def _far(samples: Samples, a: int, b: int, tensors: Sequence[int]) -> float:
    """The squared distance of two steps over some tensors."""
    if len(tensors) == len(samples.names):
        return float(((samples.moved[a].astype(float) - samples.moved[b]) ** 2).sum())
    return sum(
        float(((samples.moved[a, here].astype(float) - samples.moved[b, here]) ** 2).sum())
        for here in map(samples.columns, tensors)
    )


def _twice(samples: Samples, first: int, last: int, tensors: Sequence[int]) -> bool:
    """Whether the gap before or after equal rows first..last is that of two steps beside the next ones, in a run that
    moves as far before as after: where a schedule begins anew, no gap is like another."""
    count = len(samples.steps)
    far = {
        gap: np.sqrt(_far(samples, gap, gap + 1, tensors)) for gap in range(max(0, first - 2), min(count - 1, last + 2))
    }
    before = [far[gap] for gap in (first - 2, first - 1) if gap in far]
    after = [far[gap] for gap in (last, last + 1) if gap in far]
    if len(before) < 2 or len(after) < 2 or not 0 < max(after[1], before[1]) < STEADY * min(after[1], before[0]):
        return False
    late, early = after[0] / np.sqrt(before[1] * after[1]), before[1] / np.sqrt(before[0] * after[0])
    return bool(max(late, early) > TWICE)


def _plateau(samples: Samples, block: list[int], moves: Mapping[int, bool]) -> Finding:
    steps = tuple(samples.steps[row] for row in block)
    known = [moves[step] for step in steps[:-1] if step in moves]
    ends = block[0] == 0 or block[-1] == len(samples.steps) - 1
    words = f"all sampled elements of {len(steps)} steps in a row are equal"
    if len(known) == len(steps) - 1 and not any(known):
        return Finding(steps, PLATEAU, f"{words}; no update was made there (rate 0, gradient 0 or skipped)", NOTE)
    twice = len(block) == 2 and _twice(samples, block[0], block[-1], list(range(len(samples.names))))
    standing = int((samples.changed[1:].sum(axis=1) == 0).sum())
    often = standing > max(1, (len(samples.steps) - 1) // 10)
    if known and all(known) and twice and not often:
        words += f"; the rate at step {steps[0]} is not 0, and the gap beside them is that of two"
        return Finding(steps, EQUAL, words, DAMAGE, belongs_to=None)
    if ends and not (known and any(known) and not often):
        return Finding(steps, PLATEAU, f"{words}; the run does not move there", NOTE)
    if twice and not often:
        return Finding(steps, EQUAL, f"{words}; the gap beside them is that of two", SUSPICIOUS)
    if known and any(known) and not often and len(steps) == 2:
        return Finding(steps, EQUAL, f"{words}; the rate at step {steps[0]} is not 0", SUSPICIOUS)
    return Finding(steps, PLATEAU, f"{words}; the run does not move there", NOTE)

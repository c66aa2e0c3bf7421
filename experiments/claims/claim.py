"""A claim of a paper: which numbers of a report it is about, its parts, and when each of these holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.measured import Measured, Value, over
from experiments.recipe import Training

#: Numbers of a training by their names, as they stand in the table; those that begin with HIDDEN are for judging alone.
Numbers = Mapping[str, float]
HIDDEN = "_"
#: The same over the trainings of a cell.
Values = Mapping[str, Value]

#: Says of a cell's values whether a part of a claim holds.
Judge = Callable[[Values], str]

#: Of a part of a claim on a cell: it holds, it does not, the errors leave it open, or its numbers were not measured.
YES, NO, OPEN, ABSENT = "yes", "no", "open", ""
PARTLY, UNDECIDED = "in part", "not decided"


@dataclass(frozen=True, eq=False)
class Claim:
    """`measure` gives a training's numbers; `parts` are what the claim says, under each convention by itself, judged on
    the means over seeds of a cell. `words` are the paper's, `convention` how its authors measured, `rule` when a part
    holds, `why` what is to be said beside what came out, and `figures` pictures of figures/, RECIPE-FIGURE, and what
    they show."""

    key: str
    words: str
    recipes: tuple[str, ...]
    convention: str
    measure: Callable[[Measured], Numbers]
    parts: Mapping[str, Judge]
    rule: str
    why: str = ""
    figures: tuple[tuple[str, str], ...] = ()
    #: In place of `parts`, for claims about what varies between cells: the answers to each of its parts.
    across: Callable[[Sequence[Cell]], Mapping[str, Sequence[str]]] | None = None


@dataclass(frozen=True)
class Cell:
    """What a claim's numbers are over the trainings that differ in nothing but their seeds, and the answers to its
    parts."""

    training: Training
    values: Values
    answers: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.training.cell


def cells(claim: Claim, measured: Iterable[Measured]) -> list[Cell]:
    """The claim on each cell of trainings that has any of its numbers."""
    kinds: dict[str, list[Measured]] = {}
    for each in measured:
        kinds.setdefault(each.training.cell, []).append(each)
    found = []
    for runs in kinds.values():
        numbers = [claim.measure(run) for run in runs]
        labels = dict.fromkeys(label for each in numbers for label in each)
        values = {label: over([each.get(label, np.nan) for each in numbers]) for label in labels}
        if any(value.measured for value in values.values()):
            answers = {part: judge(values) for part, judge in claim.parts.items()}
            found.append(Cell(runs[0].training, values, answers))
    return found


def verdict(claim: Claim, found: Sequence[Cell]) -> str:
    """Of a claim over its cells: yes, no, in part or not decided; and, unless it is plain, of how many cells each part
    holds."""
    if claim.across:
        answers = claim.across(found)
    else:
        answers = {part: [cell.answers[part] for cell in found] for part in claim.parts}
    answers = {part: [each for each in given if each != ABSENT] for part, given in answers.items()}
    answers = {part: given for part, given in answers.items() if given}
    given = [each for part in answers.values() for each in part]
    if not set(given) - {OPEN}:
        return UNDECIDED
    if set(given) == {YES}:
        return YES
    plain = f"{YES} where decided" if NO not in given else NO if YES not in given else PARTLY
    return "<br>".join([f"**{plain}**", *(f"{part}: {_counted(each)}" for part, each in answers.items())])


def _counted(answers: Sequence[str]) -> str:
    still = f" ({answers.count(OPEN)} open)" if OPEN in answers else ""
    return f"{answers.count(YES)} of {len(answers)}{still}"


def told(answers: Mapping[str, str]) -> str:
    """The parts of a claim on one cell in a few words: yes, or which of them fail or are open."""
    given = {part: answer for part, answer in answers.items() if answer != ABSENT}
    kinds = set(given.values())
    if len(kinds) < 2:
        return next(iter(kinds), "")
    failing, still = ([part for part, answer in given.items() if answer == kind] for kind in (NO, OPEN))
    words = [f"no: {'; '.join(failing)}"] if failing else []
    return ". ".join([*words, *([f"open: {'; '.join(still)}"] if still else [])])


def above(value: Value | None, bound: float) -> str:
    """Whether a value lies above a bound by two of its errors. Open where it lies within them, where one training alone
    gives no error, and where it would hold on the strength of those trainings alone that have a value."""
    return _beyond(value, bound, 1.0)


def below(value: Value | None, bound: float) -> str:
    """Whether a value lies below a bound by two of its errors; open as for `above`."""
    return _beyond(value, bound, -1.0)


def _beyond(value: Value | None, bound: float, sign: float) -> str:
    if value is None or not value.measured:
        return ABSENT
    if value.runs < 2:
        return OPEN
    apart = sign * (value.mean - bound)
    if apart < -2 * value.error or (apart <= 0 and value.error == 0):
        return NO
    return YES if apart > 2 * value.error and value.runs == value.of else OPEN


def bounded(value: Value | None, bound: float) -> str:
    """Whether a quotient lies below a bound; it does not where it is unbounded in a single training."""
    return NO if value is not None and value.unbounded else below(value, bound)


def every(*answers: str) -> str:
    """No where one is, else open where one is, else absent where one is, else yes."""
    return next((kind for kind in (NO, OPEN, ABSENT) if kind in answers), YES)


def differs(one: Value, other: Value) -> str:
    """Whether one value lies above another by two of the errors of their difference."""
    if not one.measured or not other.measured:
        return ABSENT
    error = float(np.hypot(one.error, other.error)) if min(one.runs, other.runs) > 1 else np.nan
    return above(Value(one.mean - other.mean, error, min(one.runs, other.runs), max(one.of, other.of)), 0.0)


def is_above(label: str, bound: float) -> Judge:
    return lambda values: above(values.get(label), bound)


def is_below(label: str, bound: float) -> Judge:
    return lambda values: below(values.get(label), bound)


def is_bounded(label: str, bound: float) -> Judge:
    return lambda values: bounded(values.get(label), bound)


def within_two(name: str) -> Judge:
    """Whether a total is within a factor of two of a change of the loss, and of its sign: whether it lies between half
    and twice that, by its differences from them, training by training, which `halves` puts among the numbers."""

    def judge(values: Values) -> str:
        sides = [above(values.get(f"{HIDDEN}{name}, {which}"), 0.0) for which in ("half", "twice")]
        if unknown := {ABSENT, OPEN} & set(sides):
            return OPEN if OPEN in unknown else ABSENT
        return YES if sides[0] != sides[1] else NO

    return judge


def halves(name: str, total: float, change: float) -> dict[str, float]:
    """What `within_two` judges by."""
    return {f"{HIDDEN}{name}, half": total - change / 2, f"{HIDDEN}{name}, twice": total - 2 * change}

"""A claim of a paper: which numbers of a report it is about, and when they agree with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.measured import Measured, Value, over
from experiments.recipe import Training

#: Numbers of a training by their names, as they stand in the table.
Numbers = Mapping[str, float]
#: The same over the trainings of a cell.
Values = Mapping[str, Value]

AGREES, PARTLY, NOT, UNDECIDED = "yes", "in part", "no", "not decided"


@dataclass(frozen=True)
class Claim:
    """`measure` gives a training's numbers; `agrees` says of their means over seeds, a cell, whether the claim holds,
    None where the errors leave it open. `words` are the paper's, `convention` how its authors measured, `rule` what
    agreeing is, and `why` what is to be said beside what came out."""

    key: str
    words: str
    recipes: tuple[str, ...]
    convention: str
    measure: Callable[[Measured], Numbers]
    agrees: Callable[[Values], bool | None]
    rule: str
    why: str = ""
    #: A picture of figures/ by its name, RECIPE-FIGURE, and what it shows.
    figure: tuple[str, str] | None = None
    #: Says whether the claim holds of cells that differ, in place of `agrees`: for claims about what varies.
    across: Callable[[Sequence[Cell]], str] | None = None


@dataclass(frozen=True)
class Cell:
    """What a claim's numbers are over the trainings that differ in nothing but their seeds."""

    training: Training
    values: Values
    holds: bool | None

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
        if any(value.runs for value in values.values()):
            found.append(Cell(runs[0].training, values, claim.agrees(values)))
    return found


def verdict(claim: Claim, found: Sequence[Cell]) -> str:
    """Of a claim over its cells: yes, no, in part (so many of so many), or not decided."""
    if claim.across:
        return claim.across(found)
    known = [cell.holds for cell in found if cell.holds is not None]
    if not known:
        return UNDECIDED
    if all(known):
        return AGREES
    return NOT if not any(known) else f"{PARTLY}: {sum(known)} of {len(known)}"


def above(value: Value | None, bound: float) -> bool | None:
    """Whether a value lies above a bound by two of its errors; None where it lies within them, or is not known."""
    if value is None or not value.runs:
        return None
    return True if value.low > bound else False if value.high < bound else None


def below(value: Value | None, bound: float) -> bool | None:
    """Whether a value lies below a bound by two of its errors; None where it lies within them, or is not known."""
    answer = above(value, bound)
    return None if answer is None else not answer


def every(*answers: bool | None) -> bool | None:
    """False where one is, None where one is open, else True."""
    return False if False in answers else None if None in answers else True

"""Which loss is replayed: the one that was named, else the run's own program, else none. Decided here for all commands.

A program that is taken because nobody named anything must not stand in the way of what needs no losses: where it cannot
be used the report is made without, and says why (`Choice.unused`). One that was asked for, by name or by something that
needs losses, is an error then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trajcheck.errors import ObjectiveError
from trajcheck.measuring.cost import Cost
from trajcheck.metrics.families import Family
from trajcheck.objective.exported_modes import EXPORTED
from trajcheck.options.shared import NONE
from trajcheck.progress_bar import remark
from trajcheck.readable import time_text
from trajcheck.runs.formats.stored_run import PROGRAM, has_program
from trajcheck.tables.needed import needed

#: Seconds of a replay that nobody asked for by name, from which the terminal says beforehand how long it takes.
LONG = 5.0

#: What a loss takes of the time that it takes with its gradient.
LOSS_ALONE = 1 / 3

#: How a replay that nobody named is left out.
LEAVE_OUT = "--objective none leaves losses out"


@dataclass(frozen=True)
class Choice:
    """`objective` is FILE.py:NAME, `run`, or None where nothing is replayed; `by_default` whether it is the run's own
    program without having been asked for; `unused` why the run's own one is not used, in a sentence, or ''."""

    objective: str | None
    by_default: bool = False
    unused: str = ""

    @property
    def warning(self) -> str:
        """What a reader should know of a program that is not used; '' where there is nothing to say."""
        if not self.unused:
            return ""
        return f"no losses were replayed: the run's own program ({PROGRAM}) is not used: {self.unused}"

    @property
    def in_words(self) -> str:
        """What --dry-run says of a loss that nobody named; '' of one that somebody did."""
        if self.by_default:
            return f"losses are those of the run's own program, {PROGRAM}; {LEAVE_OUT}"
        return self.warning

    def without(self, why: str) -> Choice:
        """The choice after the program, taken by default, turned out to be of no use."""
        return Choice(None, unused=why.rstrip(". "))


def choose(named: str | None, runs: Sequence[Path], *, asked: bool = False, wanted: bool = True) -> Choice:
    """The loss of `runs`, the first of which is the one that is measured: `named`, where something was.

    `asked`: something that needs losses was named, `wanted`: something needs them at all. Programs are looked at by
    their headers alone.
    """
    if named is not None:
        return Choice(None if named == NONE else named)
    if not runs or not has_program(runs[0]):
        return Choice(None)
    if asked:
        return Choice(EXPORTED)
    if not wanted:
        return Choice(None)
    # whatever a program may hold is known there; the stored-vector road has nothing of it
    from trajcheck.objective.program.stored import checked_program, read_facts

    for run in runs:
        if not has_program(run):
            return Choice(None, unused=f"{run} has none")
        try:
            checked_program(read_facts(run / PROGRAM), run / PROGRAM)
        except ObjectiveError as error:
            return Choice(None).without(str(error))
    return Choice(EXPORTED, by_default=True)


def need_losses(families: Iterable[Family]) -> bool:
    """Whether any columns of these families are made of replayed losses."""
    return any(needed([each]).evaluations for each in families)


def say_beforehand(run: Path, cost: Cost, seconds: float, quiet: bool, share: float = 1.0) -> None:
    """Tell whoever waits that losses are replayed which nobody named, where `share` of that cost takes long. `seconds`
    is what one loss with its gradient took; 0 where that is not known."""
    whole = share * seconds * (cost.losses * LOSS_ALONE + cost.gradients)
    if quiet or 0 < whole < LONG:
        return
    time = f", about {time_text(whole)}" if whole else ""
    remark(
        f"{run}: replaying the run's own program, {round(share * cost.losses):,} losses and "
        f"{round(share * cost.gradients):,} losses with gradients{time}; {LEAVE_OUT}",
        quiet,
    )

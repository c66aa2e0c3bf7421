"""Options that several commands have; words that differ are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from trajcheck.errors import UsageError
from trajcheck.options.declared import Declared, Option

#: The default of --device.
AUTO = "auto"


@dataclass(frozen=True)
class OneRun:
    """The argument of a command about one run, before its options."""

    run: Annotated[str | Path, "folder of the run; it is only read."]


#: As an objective: nothing is replayed, whatever lies in the run's folder.
NONE = "none"


def objective(help: str, python: str, metavar: str = "FILE.py:NAME|run|none") -> Option:
    return Option(help, metavar, python=python)


#: What the objective `run` is, in the words of the command line.
PROGRAM = "run: the program that the Recorder exported, RUN/objective.json, which is plain data."

SkipBad = Annotated[
    bool,
    Option(
        "Leave out steps that cannot be read or hold NaN or Inf; the summary lists them.",
        python="leave out step files that cannot be used or hold NaN or Inf, and list them.",
    ),
]


def device(verb: str = "replay", after: str = "") -> Option:
    return Option(f"Where to {verb}: auto, cpu, cuda, cuda:1.", python="auto, cpu, cuda, cuda:1, ...", after=after)


def out(default: str, python: str) -> Option:
    return Option(f"The report folder.  (default: {default})", "DIR", python=f"the report folder; default {python}.")


def check_objective(options: Declared, objective: str | None, *more: tuple[str, bool]) -> None:
    """Raise UsageError where nothing is replayed and an option that is about it was given: one that is declared so, or
    one of `more`, flags and whether they were given."""
    if objective not in (None, NONE):
        return
    for flag in (*options.replaying(), *(flag for flag, given in more if given)):
        if objective == NONE:
            raise UsageError(f"{flag} needs replayed losses, which --objective none leaves out.")
        raise UsageError(
            f"{flag} needs --objective FILE.py:NAME: without it nothing is replayed, and no program of its own lies in "
            "the run's folder."
        )


def check_permutable(objective: str | None) -> None:
    """Raise UsageError where --match-permutations is given with an objective that cannot say which units permute."""
    if objective == "run":
        raise UsageError(
            "--match-permutations with --objective run: an exported program does not say which units permute. Give "
            'FILE.py:NAME, and beside NAME write PERMUTATIONS = {"NAME": {"hidden": [("0.weight", 0), ("0.bias", '
            '0), ("2.weight", 1)]}}.'
        )

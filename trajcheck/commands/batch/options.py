"""The options of a batch, and what the file says for single runs in place of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options
from trajcheck.options.checks import LONGEST_PATTERN, MOST_WORKERS, at_least, within
from trajcheck.options.declared import Declared, Option
from trajcheck.options.shared import NONE
from trajcheck.runs.formats.stored_run import has_program
from trajcheck.scalars.saved import INTERVAL

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Seconds of a timeout at the most: timers of the system count no further than some years.
LONGEST = 366 * 86400.0


def seconds(text: Any) -> float:
    """`90`, `90s`, `15m`, `6h`, `1.5d` in seconds. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(text)) if not isinstance(text, bool) else None
    if not match or not float(match[1]):
        raise UsageError(f"timeout {text!r:.60}: expected a time, as in 90s, 15m or 6h.")
    found = float(match[1]) * _SECONDS[match[2] or "s"]
    if found > LONGEST:
        raise UsageError(f"timeout {text!r:.60}: expected a year at most. Without --timeout there is no end.")
    return found


@dataclass(frozen=True)
class Override:
    """Options of the runs whose names match a pattern."""

    match: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class BatchConfig(Declared):
    """`timeout` in seconds. Each field is a key of the file's [batch], and an option of `trajcheck batch`."""

    include: Annotated[
        Sequence[str], Option("Only runs whose path below the archive matches, as 'gpt2/*'. Repeat.", "PATTERN")
    ] = ()
    exclude: Annotated[Sequence[str], Option("No runs whose path below the archive matches. Repeat.", "PATTERN")] = ()
    workers: Annotated[
        int | None,
        Option(
            "Worker processes.  (default: none, all in this process)", "N", check=within(1, MOST_WORKERS, "a number")
        ),
    ] = None
    devices: Annotated[
        Sequence[str], Option("A worker on each, as cuda:0; repeat or separate by commas.", "DEVICE", commas=True)
    ] = ()
    runner: Annotated[str, Option("Where work runs; ray needs the extra `ray`.  (default: local)", "local|ray")] = (
        "local"
    )
    address: Annotated[
        str | None, Option("Of a Ray cluster, or auto.  (default: a Ray of this machine)", "ADDRESS")
    ] = None
    gpus_per_task: Annotated[float, Option("GPUs that Ray gives each task.  (default: 0)", "N")] = 0.0
    timeout: Annotated[
        float | None, Option("End after that time, as 6h or 90m; the next call goes on.", "TIME", reads=seconds)
    ] = None
    max_runs: Annotated[
        int | None,
        Option("Analyze no more than so many runs; the next call goes on.", "N", check=at_least(1, "a number")),
    ] = None
    deep: Annotated[bool, Option("Know files by the hash of their bytes, not by size and time; reads all of them.")] = (
        False
    )
    plots: bool | None = None
    interval: float = INTERVAL
    options: Options = field(default_factory=Options)
    overrides: tuple[Override, ...] = ()

    def options_of(self, name: str) -> Options:
        """The options of one run, by its path below the archive; whether they go together is not checked yet."""
        options = self.options
        for override in self.overrides:
            if fnmatchcase(name, override.match):
                options = replace(options, **override.options)
        return options

    def check(self) -> None:
        """Raise UsageError for options that make no sense. Where there are several tables of them, what one lacks
        another may have: whether they go together is then a matter of each run."""
        self.check_values()
        for each in (*self.include, *self.exclude, *(override.match for override in self.overrides)):
            if len(each) > LONGEST_PATTERN:
                raise UsageError(f"pattern {each!r:.60}: expected {LONGEST_PATTERN:,} characters at most.")
        if self.interval < 0:
            raise UsageError(f"interval {self.interval:g}: expected seconds, 0 or more.")
        if not self.overrides:
            check_analysis(replace(self.options, ref_as=()), own=True)
        for one in (self.options, *(replace(self.options, **override.options) for override in self.overrides)):
            one.check_values()
            check_steps(one)


def check_analysis(options: Options, *, own: bool) -> None:
    """Raise UsageError for options of an analysis that contradict each other, before any run is opened. `own`: runs may
    have programs of their own to replay."""
    taken = own and options.objective is None and not options.match_permutations
    (replace(options, objective="run") if taken else options).check()
    check_steps(options)


def may_replay(options: Options, run: Path) -> bool:
    """Whether losses of a run are to be replayed, as far as the presence of its program tells."""
    return has_program(run) if options.objective is None else options.objective != NONE


def check_steps(options: Options) -> None:
    if options.steps is not None:
        from trajcheck.scalars.rows import (
            parse_steps,  # imports numpy, for which a batch with nothing to do has no time
        )

        parse_steps(options.steps)

"""Which CSV a user names as the log of a run, by which columns; and whether the options that say so go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trajcheck.errors import UsageError

#: Stands for the run's folder in --log, where several runs are read.
RUN = "{run}"


@dataclass(frozen=True)
class LogChoice:
    """The file, and its columns: of the step, of the loss at x_step, and of the rate of each parameter group."""

    file: str | None = None
    step: str = "step"
    loss: str | None = None
    lr: Sequence[str] = ()

    def of_run(self, run: Path) -> LogChoice:
        """With the file of one run."""
        file = None if self.file is None else self.file.replace(RUN, str(run))
        return LogChoice(file, self.step, self.loss, tuple(self.lr))

    def check(self, runs: int = 1) -> None:
        """Raise UsageError where the options that say it do not go together; `runs` is how many have a log."""
        if self.file is None:
            for flag, value in (("--log-loss", self.loss), ("--log-lr", ",".join(self.lr))):
                if value:
                    raise UsageError(f"{flag} {value} names a column of a log: give --log FILE.csv.")
            return
        if self.loss is None and not self.lr:
            raise UsageError(
                f"--log {self.file} gives nothing without a column: --log-loss COL, --log-lr COL, or both."
            )
        if runs > 1 and RUN not in self.file:
            raise UsageError(
                f"--log {self.file} is one file, and {runs} runs are read: write {RUN} where their folders stand, as "
                f"in {RUN}/log.csv."
            )


class _Options(Protocol):
    """Options of a command that reads runs."""

    @property
    def log(self) -> str | None: ...
    @property
    def log_step(self) -> str: ...
    @property
    def log_loss(self) -> str | None: ...
    @property
    def log_lr(self) -> Sequence[str]: ...


def log_of(options: _Options) -> LogChoice:
    """What a command's options say."""
    return LogChoice(options.log, options.log_step, options.log_loss, tuple(options.log_lr))

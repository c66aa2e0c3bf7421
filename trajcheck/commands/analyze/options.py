"""The arguments of `analyze`: a run, the options of its analysis, and where the report goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from trajcheck.measuring.options import Options
from trajcheck.options import shared
from trajcheck.options.declared import Option, part_of


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments(Options, shared.OneRun):
    out: Annotated[
        str | Path | None, shared.out("reports/RUN", python="reports/<the run's path below the working folder>")
    ] = None
    fresh: Annotated[
        bool,
        Option(
            "Compute everything anew, rather than go on from the scalars that an earlier call saved with the report: "
            "for what trajcheck cannot see has changed, such as data that the objective loads.",
            python="compute everything anew: for what trajcheck cannot see has changed, such as data that the "
            "objective loads.",
        ),
    ] = False
    quiet: Annotated[bool, "no progress bars."] = True

    @property
    def options(self) -> Options:
        return part_of(self, Options)

    @property
    def folder(self) -> Path | None:
        """Of the report, if one was named."""
        return None if self.out is None else Path(self.out)

"""What commands came to, as Python has it: an analysis, a comparison, a flow, a verification."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from trajcheck.audit.findings import Audit
from trajcheck.reports.notebook.shown import Shown
from trajcheck.reports.reading.report import TABLES, SavedReport, as_saved
from trajcheck.runs.formats.verification import RunVerification


@dataclass(frozen=True)
class Verification:
    """All runs that were found, in the order of their paths, and of each what was found."""

    runs: tuple[RunVerification, ...]
    audits: tuple[Audit, ...]

    @property
    def damaged(self) -> bool:
        return any(audit.damage for audit in self.audits)

    def as_json(self) -> dict[str, Any]:
        """With stable keys, as docs/verify.md names them."""
        runs = [
            {
                "path": str(run.path),
                "files": run.files,
                "bytes_of_files": run.bytes,
                "checksums": run.checked,
                **audit.as_json(),
                "steps": run.steps,
            }
            for run, audit in zip(self.runs, self.audits, strict=True)
        ]
        return {"format": 1, "damaged": self.damaged, "runs": runs}


@dataclass(frozen=True)
class Comparison(Shown):
    """What a comparison gave: compare.csv as `pairs`, the other tables, the summary, and the folder that holds them.

    `layers` is None where nobody asked for it. `incomplete` lists what was explicitly asked for and could not be
    computed.
    """

    folder: Path
    pairs: pd.DataFrame
    undefined: pd.DataFrame
    summary: dict[str, Any]
    incomplete: list[str] = field(default_factory=list)
    layers: pd.DataFrame | None = None

    def _saved(self) -> SavedReport:
        tables = {"compare": self.pairs, "layers": self.layers}
        return as_saved(self.folder, "comparison", tables, self.undefined, self.summary)


@dataclass(frozen=True)
class Report(Shown):
    """What an analysis gave: the tables as they stand in the CSV files, the summary, and the folder that holds them.

    `layers`, `trajectory`, `allocation` and `averages` are None where nobody asked for them, `losses` where no log has
    those of all steps. `incomplete` lists what was explicitly asked for and could not be computed.
    """

    folder: Path
    steps: pd.DataFrame
    references: pd.DataFrame
    assumptions: pd.DataFrame
    undefined: pd.DataFrame
    summary: dict[str, Any]
    incomplete: list[str] = field(default_factory=list)
    layers: pd.DataFrame | None = None
    trajectory: pd.DataFrame | None = None
    losses: pd.DataFrame | None = None
    allocation: pd.DataFrame | None = None
    averages: pd.DataFrame | None = None
    schedule: pd.DataFrame | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its CSV files."""
        made = [name for name, frame in self._tables.items() if frame is not None]
        return tuple(f"{name}.csv" for name in (*made, "undefined"))

    @property
    def _tables(self) -> dict[str, pd.DataFrame | None]:
        """All but undefined.csv, by name."""
        return {name: getattr(self, name) for name in TABLES["analysis"]}

    def _saved(self) -> SavedReport:
        return as_saved(self.folder, "analysis", self._tables, self.undefined, self.summary)


@dataclass(frozen=True)
class FlowReport(Shown):
    """What a flow gave: flow.csv and undefined.csv as frames, the summary, and the folder that holds them.

    `incomplete` lists what was asked for and could not be computed.
    """

    folder: Path
    flow: pd.DataFrame
    undefined: pd.DataFrame
    summary: dict[str, Any]
    incomplete: list[str] = field(default_factory=list)

    def _saved(self) -> SavedReport:
        return as_saved(self.folder, "flow", {"flow": self.flow}, self.undefined, self.summary)

"""What an analysis would read and evaluate, without its time."""

from __future__ import annotations

from pathlib import Path

from trajcheck.measuring.cost import Cost
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options


def estimate(run: Path, options: Options) -> Cost:
    """As `trajcheck analyze --dry-run` says it."""
    return MeasuredRun(run, options, quiet=True).cost()

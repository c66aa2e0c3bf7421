"""The options of an analysis."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trajcheck.errors import UsageError


@dataclass(frozen=True)
class Options:
    """What to analyze; see `analyze`."""

    refs: tuple[str, ...] = ("final",)
    objective: str | None = None
    ref_gradients: bool = False
    metrics: tuple[str, ...] = ()
    steps: str | None = None
    skip: int = 1
    skip_bad: bool = False
    replay_dtype: str | None = None
    device: str = "auto"
    curvature: int | None = None

    def check(self, families: Collection[str]) -> None:
        """Raise UsageError for options that contradict each other; `families` are those that `metrics` chooses."""
        if self.skip < 1:
            raise UsageError(f"--skip {self.skip}: expected a number of steps, 1 or more.")
        if not self.refs:
            raise UsageError("no reference was given; the default is final.")
        if self.curvature is not None and self.curvature < 1:
            raise UsageError(f"--curvature {self.curvature}: expected a number of rows, 1 or more.")
        if self.ref_gradients and "smoothness" not in families:
            raise UsageError("--ref-gradients is for smoothness towards references: add smoothness to --metrics.")
        if self.objective is None:
            for option, given in (
                ("--ref-gradients", self.ref_gradients),
                ("--replay-dtype", self.replay_dtype is not None),
                ("--curvature", self.curvature is not None),
            ):
                if given:
                    raise UsageError(f"{option} needs --objective FILE.py:NAME: without it nothing is replayed.")

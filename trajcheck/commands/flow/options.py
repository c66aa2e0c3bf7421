"""The options of a gradient flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trajcheck.errors import UsageError

#: On which sample the flow may be: one function, the same at every time.
FLOW_SAMPLES = ("full", "probe", "own")
FLOW_DTYPES = ("float64", "float32")
MAX_EVALUATIONS = 100_000


@dataclass(frozen=True)
class FlowOptions:
    """What to integrate, and how; see `gradient_flow.flow`."""

    objective: str
    start: str = "init"
    sample: str | None = None  # none: the first of full, own, probe that there is
    rtol: float = 1e-4
    atol: float | None = None
    max_evaluations: int = MAX_EVALUATIONS
    replay_dtype: str | None = None
    curvature: int | None = None
    wanted_distance: float | None = None
    device: str = "auto"
    skip_bad: bool = False

    @property
    def start_step(self) -> int | None:
        """N of `step:N`; None for init. Raises UsageError."""
        kind, _, number = self.start.partition(":")
        if self.start == "init":
            return None
        if kind != "step" or not (number.isascii() and number.isdigit()):
            raise UsageError(f"--from {self.start!r}: expected init or step:N, as in step:100.")
        return int(number)

    def check(self) -> None:
        """Raise UsageError for options that contradict each other or make no sense."""
        _ = self.start_step
        if not self.objective:
            raise UsageError("a flow needs the loss: give --objective FILE.py:NAME, or --objective run.")
        if self.sample is not None and self.sample not in FLOW_SAMPLES:
            raise UsageError(f"--sample {self.sample!r}: expected one of {', '.join(FLOW_SAMPLES)}.")
        if self.replay_dtype is not None and self.replay_dtype not in FLOW_DTYPES:
            raise UsageError(f"--replay-dtype {self.replay_dtype!r}: a flow's gradients are in float64 or float32.")
        if not 1e-13 <= self.rtol < 1:
            raise UsageError(f"--rtol {self.rtol:g}: expected a number from 1e-13 to 1.")
        if self.atol is not None and not (self.atol > 0 and math.isfinite(self.atol)):
            raise UsageError(f"--atol {self.atol:g}: expected a positive number.")
        if self.max_evaluations < 1:
            raise UsageError(f"--max-evaluations {self.max_evaluations}: expected a number of gradients, 1 or more.")
        if self.curvature is not None and self.curvature < 1:
            raise UsageError(f"--curvature {self.curvature}: expected a number of recorded times, 1 or more.")
        if self.wanted_distance is not None:
            if not (self.wanted_distance > 0 and math.isfinite(self.wanted_distance)):
                raise UsageError(f"--wanted-distance {self.wanted_distance:g}: expected a positive distance.")
            if self.curvature is None:
                raise UsageError("--wanted-distance is a question to the bound, which needs --curvature EVERY.")

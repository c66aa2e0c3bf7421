"""The options of a gradient flow, and the arguments of `flow`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from trajcheck.errors import UsageError
from trajcheck.objective.common.names import check_data, choice_of
from trajcheck.options import shared
from trajcheck.options.checks import among, at_least, positive
from trajcheck.options.declared import Declared, Option, part_of
from trajcheck.runs.logs.log_choice import log_of

#: On which sample the flow may be: one function, the same at every time.
FLOW_SAMPLES = ("full", "probe", "own")
FLOW_DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class FlowOptions(Declared):
    """What to integrate, and how. Their order is that of summary.json and of the page."""

    objective: Annotated[
        str | None,
        shared.objective(
            "The loss f: NAME() returns (model, loss) or (model, loss, batches), loss(model, batch) a scalar tensor; "
            f"the file is executed. {shared.PROGRAM}  (default: run)",
            python='"FILE.py:NAME" or "run", as for `analyze`; "run" is the default.',
            metavar="FILE.py:NAME|run|hf-...",
        ),
    ] = None
    _: KW_ONLY
    start: Annotated[
        str,
        Option(
            "init, or step:N: the recorded iterate where it starts.",
            "POINT",
            flag="--from",
            python="init or step:N, the recorded iterate from which the flow starts.",
        ),
    ] = "init"
    sample: Annotated[
        str | None,
        Option(
            "On which sample f is: full (the objective's data set), own (the one full batch of all records), probe "
            "(the mean over the run's probe batches).  (default: the first of these that there is)",
            "NAME",
            check=among(FLOW_SAMPLES, "expected one of"),
            python="full (the objective's data set), own (the one full batch of all records) or probe (the mean over "
            "the run's probe batches); by default the first of these that there is.",
        ),
    ] = None
    rtol: Annotated[
        float,
        Option(
            "Relative tolerance; a second solution has half of it.",
            check=lambda value: "" if 1e-13 <= value < 1 else "expected a number from 1e-13 to 1",
            python="relative tolerance of the first solution.",
        ),
    ] = 1e-4
    atol: Annotated[
        float | None,
        Option(
            "Absolute tolerance.  (default: rtol / 100)",
            check=positive("a positive number"),
            python="absolute tolerance of the first solution; rtol / 100 by default.",
        ),
    ] = None
    max_evaluations: Annotated[
        int,
        Option(
            "Cap on the gradients of the integration; it ends there, exits 4, and goes on when called again with more.",
            "N",
            check=at_least(1, "a number of gradients"),
            python="cap on the gradients of both integrations together. Reaching it ends them; what was computed is "
            "reported and kept, and the same call with a larger cap goes on from there.",
        ),
    ] = 100_000
    replay_dtype: Annotated[
        str | None,
        Option(
            "Of the gradients, float64 or float32; theta is float64.  (default: the run's, float32 at least)",
            "DTYPE",
            check=lambda value: "" if value in FLOW_DTYPES else "a flow's gradients are in float64 or float32",
            python="of the gradients, float64 or float32; by default the run's own, float32 at least.",
        ),
    ] = None
    curvature: Annotated[
        int | None,
        Option(
            "At every so many recorded times, and at the last, the Hessian's extreme eigenvalues on the flow (80 "
            "gradients each); with them, a bound on the distance.",
            "EVERY",
            check=at_least(1, "a number of recorded times"),
            python="at every that many recorded times, and at the last, lambda_min and lambda_max of the Hessian.",
        ),
    ] = None
    wanted_distance: Annotated[
        float | None,
        Option(
            "Say which learning rate the bound would allow for this distance.",
            "D",
            check=positive("a positive distance"),
            python="also say which learning rate the bound would allow for this distance; needs curvature.",
        ),
    ] = None
    device: Annotated[str, shared.device("evaluate", after="skip_bad")] = shared.AUTO
    skip_bad: shared.SkipBad = False
    probe: shared.ProbeBatches = None
    data: shared.Data = None
    batch_size: shared.BatchSize = None
    sequence_length: shared.SequenceLength = None
    data_dtype: shared.DataDtype = None
    data_seed: shared.DataSeed = 0
    log: shared.Log = None
    log_step: shared.LogStep = "step"
    log_loss: shared.LogLoss = None
    log_lr: shared.LogLr = ()

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
        """Raise UsageError for values that make no sense, and for options that contradict each other."""
        _ = self.start_step
        if self.objective in (None, "", shared.NONE):
            raise UsageError(
                "a flow needs the loss: no program lies in the run's folder, or none was wanted; give --objective "
                "FILE.py:NAME."
            )
        self.check_values()
        check_data(self.objective, choice_of(self), self.sample or "probe")
        log_of(self).check()
        if self.wanted_distance is not None and self.curvature is None:
            raise UsageError("--wanted-distance is a question to the bound, which needs --curvature EVERY.")


@dataclass(frozen=True, kw_only=True)
class FlowArguments(FlowOptions, shared.OneRun):
    out: Annotated[
        str | Path | None,
        shared.out("reports/flow/RUN", python="reports/flow/<the run's path below the working folder>"),
    ] = None
    quiet: Annotated[bool, "no progress bar."] = True

    @property
    def options(self) -> FlowOptions:
        return part_of(self, FlowOptions)

    @property
    def folder(self) -> Path | None:
        """Of the report, if one was named."""
        return None if self.out is None else Path(self.out)

"""The options of an analysis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from trajcheck.errors import UsageError
from trajcheck.metrics.quantity import FAMILY_NAMES
from trajcheck.objective.common.names import check_data, choice_of
from trajcheck.options import shared
from trajcheck.options.checks import MOST_WORKERS, among, at_least, between, finite, pattern, within
from trajcheck.options.declared import Declared, Option
from trajcheck.runs.logs.log_choice import log_of
from trajcheck.runs.reference_words import as_words, role_wrong, roles_of
from trajcheck.scalars.averages import average_wrong

#: Sample conventions: on which z a row is measured; docs/analyze.md says what each is.
SAMPLES = ("own", "previous", "probe", "full")
CONVENTIONS = ("tzc-v1",)
ENDS = ("max", "min", "both")

#: Of the rule of --allocate: with fewer the curvature along a step is taken for an error of the rule.
FEWEST_POINTS = 3

#: The fewest and the most iterates that --pca takes: the work is quadratic in them.
FEWEST, MOST = 3, 500


def numbers(text: str) -> tuple[int, ...]:
    """`1,2,5` as numbers. Raises UsageError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--memory-lags {text!r}: expected numbers of steps, as in 1,2,5,10,20,50.") from None


@dataclass(frozen=True)
class Options(Declared):
    """What to analyze. Their order is that of summary.json and of the page."""

    refs: Annotated[
        Sequence[str],
        Option(
            "A reference point x*: final, init, best (lowest recorded loss), step:N, mean:N (the last N recorded "
            "iterates), OTHER_RUN, OTHER_RUN@(any of these), FILE.safetensors. Repeat for several; all are measured in "
            "one pass.  (default: final)",
            "SPEC",
            flag="--ref",
            python="reference points x*, each one of final, init, best, step:N, mean:N, OTHER_RUN, OTHER_RUN@(any of "
            "these), FILE.safetensors.",
        ),
    ] = ("final",)
    objective: Annotated[
        str | None,
        shared.objective(
            "The loss to replay: NAME() returns (model, loss), loss(model, batch) a scalar tensor; the file is "
            f"executed. {shared.PROGRAM} none: nothing is replayed; undefined.csv says what that leaves out.  "
            "(default: run, where there is a program)",
            python='"FILE.py:NAME"; NAME() returns (model, loss), loss(model, batch) a scalar. The file is executed. '
            '"run": the program that the Recorder exported, the run\'s objective.json, which is plain data; the '
            'default where there is one. "none": what needs no replayed loss is computed, and undefined.csv says what '
            "that leaves out.",
        ),
    ] = None
    _: KW_ONLY
    ref_as: Annotated[
        Sequence[str],
        Option(
            "A further reference that the tables call by its role, as other=runs/seed1; repeat. Runs whose references "
            "lie in different places are then compared by role.",
            "ROLE=SPEC",
            after="refs",
            check=role_wrong,
            python="further references by the roles under which the tables have them, {role: spec} or "
            '("role=spec", ...).',
        ),
    ] = ()
    ref_gradients: Annotated[
        bool,
        Option(
            "Replay the gradient at every reference too: smoothness towards it.",
            python="also replay the gradient at every reference, for smoothness towards it.",
            replays=True,
        ),
    ] = False
    metrics: Annotated[
        Sequence[str],
        Option(
            f"{', '.join(FAMILY_NAMES)}; repeat or separate by commas.  (default: all)",
            "FAMILY",
            after="sample",
            commas=True,
            check=among(FAMILY_NAMES, "expected some of"),
            python=f"families of metrics ({', '.join(FAMILY_NAMES)}); all when empty.",
        ),
    ] = ()
    steps: Annotated[
        str | None,
        Option(
            "Rows, as a slice of step numbers; moves neither init nor final nor x_(t-1).",
            "A:B:C",
            python='"A:B:C", the rows, like a slice of step numbers; moves neither init nor final nor x_{t-1}.',
        ),
    ] = None
    skip: Annotated[
        int | None,
        Option(
            "cos_skip takes the first record at least N steps on.  (default: as many as the run's optimizer carries a "
            "gradient on, 5/(1 - beta) with a momentum or beta1 of beta; 1 for plain SGD)",
            "N",
            check=at_least(1, "a number of steps"),
            python="cos_skip takes the first record at least this many steps on; by default as many as the run's "
            "optimizer carries a gradient on, 5/(1 - beta) with a momentum or beta1 of beta, 1 for plain SGD.",
        ),
    ] = None
    skip_bad: Annotated[
        bool,
        Option(
            "Leave out steps that cannot be read, hold NaN or Inf, or in which the audit finds damage; the summary "
            "lists them.",
            python="leave out steps that cannot be read, hold NaN or Inf, or in which the audit finds damage, and list "
            "them.",
        ),
    ] = False
    replay_dtype: Annotated[
        str | None,
        Option(
            "float64, float32, bfloat16, or as-is: each tensor in its own.  (default: float64 where it costs little, "
            "for small models; else the run's, float32 at least; "
            "as-is where it has several)",
            "DTYPE",
            replays=True,
            python='float64, float32, bfloat16, or "as-is": each tensor in its own, the default where a run has '
            "several dtypes; else float64 where it costs little, for small models, or the run's own, float32 at least.",
        ),
    ] = None
    device: Annotated[str, shared.device()] = shared.AUTO
    curvature: Annotated[
        int | None,
        Option(
            "At every so many rows, the largest eigenvalue of the Hessian at x_t on z (some 10 to 40 products, each as "
            "long as 2 to 4 gradients).",
            "EVERY",
            check=at_least(1, "a number of rows"),
            replays=True,
            python="at every that many rows, the largest eigenvalue of the Hessian at x_t on z; needs an objective.",
        ),
    ] = None
    curvature_ends: Annotated[
        str,
        Option(
            "Which end of the spectrum: max, min or both. A network's lower end is crowded: 20 to 500 products.",
            "END",
            after="curvature",
            check=among(ENDS, "expected one of"),
            python="which end of the spectrum: max, min or both.",
        ),
    ] = "max"
    curvature_tolerance: Annotated[
        float,
        Option(
            "The error of an eigenvalue that will do, relative to the largest |eigenvalue|.  lambda_max_error states "
            "it.",
            "TOL",
            after="curvature_ends",
            check=lambda value: "" if 0 < value < 1 else "expected a number between 0 and 1",
            replays=True,
            python="the error of an eigenvalue that will do, relative to the largest |eigenvalue|.",
        ),
    ] = 1e-4
    sample: Annotated[
        Sequence[str],
        Option(
            "Which z a row is measured on: own (the step's batch), previous (that of the record before), probe (the "
            "run's probe batches, with standard errors), full (the objective's data set). Repeat for several.  "
            "(default: own; previous under tzc-v1)",
            "NAME",
            after="objective",
            commas=True,
            check=among(SAMPLES, "expected some of"),
            python="on which z a row is measured, some of own (the step's), previous (that of the record before), "
            "probe (the run's probe batches, with standard errors), full (the objective's data set); by default own, "
            "and previous under tzc-v1.",
        ),
    ] = ()
    layers: Annotated[
        bool,
        Option(
            "Write layers.csv too: the tables for each tensor.", python="also write layers.csv, a row for each tensor."
        ),
    ] = False
    group: Annotated[
        Sequence[str],
        Option(
            "Write layers.csv with the tensors summed in whose names the expression matches the same text (its first "
            "group, if it has one). Repeat for several; the first that matches counts.",
            "REGEX",
            check=pattern,
            python="regular expressions; tensors in whose names one matches the same text are one row of layers.csv.",
        ),
    ] = ()
    path_integral: Annotated[
        int | None,
        Option(
            "Integrate the gradient along each step by N points, 1 to 64: should equal loss_change.",
            "N",
            check=between(1, 64, "a number of points, 1 to 64"),
            replays=True,
            python="points of a Gauss-Legendre rule for the gradient along each step.",
        ),
    ] = None
    allocate: Annotated[
        bool,
        Option(
            "Write allocation.csv too: the path integral of each tensor and parameter group, what of the loss's change "
            "it made.  (by 3 points, unless --path-integral says how many)",
            replays=True,
            python="also write allocation.csv: the path integral of each tensor and parameter group, by 3 points "
            "unless `path_integral` says how many.",
        ),
    ] = False
    average: Annotated[
        Sequence[str],
        Option(
            "Losses at averages of the recorded iterates, averages.csv, on probe or full: last:K, the mean of the last "
            "K records, or ema:D, with a decay D a step. Repeat for several: the best is chosen on one half of the "
            "probe batches and reported on the other.",
            "KIND",
            check=average_wrong,
            replays=True,
            python="averages of the recorded iterates whose losses averages.csv has, on probe or full: last:K, the "
            "mean of the last K records, or ema:D, with a decay D a step.",
        ),
    ] = ()
    tail_index: Annotated[
        bool,
        Option(
            "In layers.csv the index of the noise's tails over probe batches, beside what Gaussians give.",
            replays=True,
            python="in layers.csv, the index of the noise's tails over probe batches, beside what Gaussians give.",
        ),
    ] = False
    memory_lags: Annotated[
        Sequence[int],
        Option(
            "Cosines between the parts of g_t and g_(t+K) orthogonal to x_t - x*, for these numbers of steps (the "
            "paper's: 1,2,5,10,20,50).",
            "K,K,...",
            reads=numbers,
            check=at_least(1, "numbers of steps"),
            python="steps k of the cosine between the parts of g_t and g_{t+k} orthogonal to e_t and e_{t+k}.",
        ),
    ] = ()
    loss_floor: Annotated[
        float | None,
        Option(
            "f_inf: no loss, on any sample and anywhere, is below it; what is measured from it is empty without.  "
            "(default: 0 where the run's own program shows that it cannot be negative; else not known)",
            "F",
            after="ref_gradients",
            check=finite("a number"),
            python="f_inf: no loss, on any sample and anywhere, is below it; by default 0 where the run's own program "
            "shows that it cannot be negative, else not known.",
        ),
    ] = None
    smoothing: Annotated[
        int,
        Option("Rows over which lo_lr_smooth is taken.", "ROWS", check=at_least(1, "a number of rows")),
    ] = 51
    convention: Annotated[
        str | None,
        Option(
            "The conventions of the code of arXiv 2407.01825v1, to compare with its figures.",
            "tzc-v1",
            check=among(CONVENTIONS, "expected"),
            replays=True,
            python="tzc-v1, for the conventions of that paper's own code.",
        ),
    ] = None
    memory: Annotated[
        str | None,
        Option(
            "As in 4GB: bounds the vectors that the pass holds, and what the replay keeps on its device: parameters, "
            "gradients, references, what is read ahead, Lanczos vectors. The activations of the model's own forward "
            "and backward come on top.",
            "SIZE",
            after="curvature",
            python='such as "4GB": a bound on the vectors that the pass holds, and on what the replay keeps on its '
            "device: parameters, gradients, references, what is read ahead, Lanczos vectors; not on what the model's "
            "own forward and backward take.",
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(
            "Threads of the pass over vectors.  (default: all processors)",
            "N",
            after="memory",
            check=within(1, MOST_WORKERS, "a number"),
            python="how many read and multiply recorded vectors; by default as many as there are processors, or one "
            "where numpy does the work of the compiled loop.",
        ),
    ] = None
    match_permutations: Annotated[
        bool,
        Option(
            "Put the hidden units of references from other runs or files in the order in which they lie nearest to "
            "this run's last iterate; PERMUTATIONS in the objective's file says which axes permute together.",
            replays=True,
            python="put the hidden units of references from other runs or files in the order in which they lie nearest "
            "to this run's last iterate; the objective file's PERMUTATIONS says which axes permute together.",
        ),
    ] = False
    pca: Annotated[
        int | None,
        Option(
            f"The first two principal components of N evenly spaced iterates ({FEWEST} to {MOST}), references among "
            "them: trajectory.csv and a figure. Reads those iterates once more; the work is quadratic in N.",
            "N",
            check=between(FEWEST, MOST, f"a number of iterates, {FEWEST} to {MOST}"),
            python="so many iterates, evenly spaced, in the plane of their first two principal components: "
            "trajectory.csv.",
        ),
    ] = None
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref_as", as_words(self.ref_as))
        super().__post_init__()

    @property
    def roles(self) -> dict[str, str]:
        """References by role. Raises UsageError where one was given twice."""
        return roles_of(self.ref_as, self.refs)

    @property
    def path_points(self) -> int:
        """Of the rule for the integral along each step; 0 where nobody asked for that."""
        return self.path_integral or (FEWEST_POINTS if self.allocate else 0)

    @property
    def lags(self) -> tuple[int, ...]:
        """The lags of the memory cosines, each once."""
        return tuple(dict.fromkeys(self.memory_lags))

    @property
    def samples(self) -> tuple[str, ...]:
        """The sample conventions, each once, in the order in which they stand in the tables."""
        default = ("previous",) if self.convention else ("own",) if self.probe is None else ("probe",)
        return tuple(name for name in SAMPLES if name in (self.sample or default))

    @property
    def primary(self) -> str:
        """The sample of the headline's convexity ratio."""
        return self.samples[0]

    @property
    def memory_bytes(self) -> int | None:
        """`memory` as a number; None where nothing was said. Raises UsageError."""
        if self.memory is None:
            return None
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?\s*", self.memory, re.IGNORECASE)
        base = 1024 if match and match[3] else 1000
        size = float(match[1]) * base ** " kmgt".index(match[2].lower() or " ") if match else 0.0
        if not 1 <= size < 2**63:
            raise UsageError(f"--memory {self.memory!r:.60}: expected a size, as in 500MB or 4GB.")
        return int(size)

    def check(self) -> None:
        """Raise UsageError for values that make no sense, and for options that contradict each other."""
        self.check_values()
        families = self.metrics or FAMILY_NAMES
        if not self.refs:
            raise UsageError("no reference was given; the default is final.")
        if self.path_integral is not None and "progress" not in families:
            raise UsageError("--path-integral is a measure of progress: add progress to --metrics.")
        if self.allocate and "progress" not in families:
            raise UsageError("--allocate is a measure of progress: add progress to --metrics.")
        if self.allocate and self.path_points < FEWEST_POINTS:
            raise UsageError(
                f"--allocate: --path-integral {self.path_integral} does not tell how well a single tensor's slope is "
                f"integrated; expected {FEWEST_POINTS} points or more."
            )
        if self.average and not {"probe", "full"} & set(self.samples):
            raise UsageError(
                "--average: losses of iterates and of their averages are compared on one sample along the run, and "
                f"--sample {' '.join(self.samples)} is another one on each step: add --sample probe or full."
            )
        if self.memory_lags and "secant" not in families:
            raise UsageError("--memory-lags is a secant quantity: add secant to --metrics.")
        if self.memory_lags and "own" not in self.samples:
            raise UsageError("--memory-lags is of recorded gradients, on the steps' own samples: add --sample own.")
        if self.ref_gradients and "smoothness" not in families:
            raise UsageError("--ref-gradients is for smoothness towards references: add smoothness to --metrics.")
        _ = self.memory_bytes
        _ = self.roles
        if self.tail_index and "noise" not in families:
            raise UsageError("--tail-index is a measure of noise: add noise to --metrics.")
        if self.tail_index and "probe" not in self.samples:
            raise UsageError("--tail-index is of probe batches: add --sample probe.")
        if self.tail_index and not (self.layers or self.group):
            raise UsageError("--tail-index is of single tensors, in layers.csv: add --layers or --group.")
        check_data(self.objective, choice_of(self), *self.samples)
        log_of(self).check()
        if self.match_permutations:
            shared.check_permutable(self.objective)
        other_sample = f"--sample {' '.join(self.samples)}", self.samples != ("own",)
        shared.check_objective(self, self.objective, other_sample)

"""The options of an analysis."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from trajcheck.errors import UsageError

#: Sample conventions: on which z a row is measured; docs/analyze.md says what each is.
SAMPLES = ("own", "previous", "probe", "full")
CONVENTIONS = ("tzc-v1",)

#: The fewest and the most iterates that --pca takes: the work is quadratic in them.
FEWEST, MOST = 3, 500


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
    sample: tuple[str, ...] = ()  # none: own, or what the convention uses
    layers: bool = False
    group: tuple[str, ...] = ()
    path_integral: int | None = None
    memory_lags: tuple[int, ...] = ()
    smoothing: int = 51
    convention: str | None = None
    memory: str | None = None
    threads: int | None = None
    match_permutations: bool = False
    pca: int | None = None

    @property
    def lags(self) -> tuple[int, ...]:
        """The lags of the memory cosines, each once."""
        return tuple(dict.fromkeys(self.memory_lags))

    @property
    def samples(self) -> tuple[str, ...]:
        """The sample conventions, each once, in the order in which they stand in the tables."""
        default = ("previous",) if self.convention else ("own",)
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

    def check(self, families: Collection[str]) -> None:
        """Raise UsageError for options that contradict each other; `families` are those that `metrics` chooses."""
        if self.skip < 1:
            raise UsageError(f"--skip {self.skip}: expected a number of steps, 1 or more.")
        if not self.refs:
            raise UsageError("no reference was given; the default is final.")
        if self.curvature is not None and self.curvature < 1:
            raise UsageError(f"--curvature {self.curvature}: expected a number of rows, 1 or more.")
        for name in self.sample:
            if name not in SAMPLES:
                raise UsageError(f"--sample {name!r}: expected some of {', '.join(SAMPLES)}.")
        for pattern in self.group:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(f"--group {pattern!r}: not a regular expression: {error}.") from error
        if self.path_integral is not None and not 1 <= self.path_integral <= 64:
            raise UsageError(f"--path-integral {self.path_integral}: expected a number of points, 1 to 64.")
        if self.path_integral is not None and "progress" not in families:
            raise UsageError("--path-integral is a measure of progress: add progress to --metrics.")
        for lag in self.memory_lags:
            if lag < 1:
                raise UsageError(f"--memory-lags {lag}: expected numbers of steps, 1 or more.")
        if self.memory_lags and "secant" not in families:
            raise UsageError("--memory-lags is a secant quantity: add secant to --metrics.")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads {self.threads}: expected a number, 1 or more.")
        if self.memory_lags and "own" not in self.samples:
            raise UsageError("--memory-lags is of recorded gradients, on the steps' own samples: add --sample own.")
        if self.smoothing < 1:
            raise UsageError(f"--smoothing {self.smoothing}: expected a number of rows, 1 or more.")
        if self.convention is not None and self.convention not in CONVENTIONS:
            raise UsageError(f"--convention {self.convention!r}: expected {' or '.join(CONVENTIONS)}.")
        if self.ref_gradients and "smoothness" not in families:
            raise UsageError("--ref-gradients is for smoothness towards references: add smoothness to --metrics.")
        if self.pca is not None and not FEWEST <= self.pca <= MOST:
            raise UsageError(f"--pca {self.pca}: expected a number of iterates, {FEWEST} to {MOST}.")
        _ = self.memory_bytes
        if self.match_permutations:
            check_permutable(self.objective)
        if self.objective is None:
            for option, given in (
                ("--ref-gradients", self.ref_gradients),
                ("--replay-dtype", self.replay_dtype is not None),
                ("--curvature", self.curvature is not None),
                ("--path-integral", self.path_integral is not None),
                ("--convention", self.convention is not None),
                ("--match-permutations", self.match_permutations),
                (f"--sample {' '.join(self.samples)}", self.samples != ("own",)),
            ):
                if given:
                    raise UsageError(f"{option} needs --objective FILE.py:NAME: without it nothing is replayed.")


def check_permutable(objective: str | None) -> None:
    """Raise UsageError where --match-permutations is given with an objective that cannot say which units permute."""
    if objective == "run":
        raise UsageError(
            "--match-permutations with --objective run: an exported program does not say which units permute. Give "
            'FILE.py:NAME, and beside NAME write PERMUTATIONS = {"NAME": {"hidden": [("0.weight", 0), ("0.bias", '
            '0), ("2.weight", 1)]}}.'
        )

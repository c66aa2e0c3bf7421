"""The sampled elements of every step of a run, as what the audit decides by: differences, prints, sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajcheck.audit.positions import WHOLE, Much
from trajcheck.audit.reading import Places, SampleReader
from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.runs.snapshot import Snapshot

#: At most so many coordinates of a tensor are kept of each step, and so many bytes of all.
COORDINATES, KEPT_BYTES = 512, 1 << 27
#: A range of at least so many elements that are all 0 is looked at.
LONG = 64
#: So many samples are looked at at once, of several steps where one has fewer.
AT_ONCE = 1 << 17
#: A run that diverges may hold numbers that float32 does not.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Samples:
    """What was read of `steps`, a row a step; a column a tensor, or a range of one.

    `moved` holds x_t - x_0 at the sampled elements, x_0 the first step read, scaled so that a sum of squares is that of
    the whole tensor in expectation; of a tensor with more samples than coordinates, random signed sums of them, which
    keep distances in expectation (`sketch` makes them). `prints` are 64-bit sums of the sampled bits; `changed` counts
    the elements that differ from the step before; `sums`, `squares`, `with_first` are sums of x, x^2 and x x_0
    over the samples, and `first` is x_0.
    `unreadable` names the steps that could not be read and are not among them.
    """

    steps: tuple[int, ...]
    names: tuple[str, ...]
    numels: np.ndarray
    counts: np.ndarray
    moved: np.ndarray
    starts: np.ndarray
    prints: np.ndarray
    changed: np.ndarray
    finite: np.ndarray
    zeros: np.ndarray
    range_zero: np.ndarray
    range_tensor: np.ndarray
    range_long: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    with_first: np.ndarray
    first: np.ndarray
    sketch: Callable[[np.ndarray], np.ndarray]
    bytes: int
    unreadable: Mapping[int, str]

    @property
    def coordinates(self) -> np.ndarray:
        """How many coordinates of each tensor are kept."""
        return np.diff(self.starts)

    def columns(self, tensor: int) -> slice:
        return slice(self.starts[tensor], self.starts[tensor + 1])

    @cached_property
    def moves(self) -> np.ndarray:
        """Whether each tensor differs anywhere between two steps."""
        return np.asarray((self.prints != self.prints[:1]).any(axis=0))


class _Sketch:
    """Differences of samples into few coordinates: as they are, or random signed sums."""

    def __init__(self, places: Places, numels: np.ndarray, most: int) -> None:
        counts = np.diff(np.append(places.starts, places.count))
        kept = np.minimum(counts, most)
        self.starts = np.concatenate([[0], np.cumsum(kept)])
        self._summed = bool((counts > most).any())
        self._weights = np.repeat(np.sqrt(numels / counts), counts)
        if self._summed:
            draws = np.random.default_rng(0)
            signs = np.where(draws.random(places.count) < 0.5, -1.0, 1.0)
            within = np.arange(places.count) - np.repeat(places.starts, counts)
            many = np.repeat(counts > most, counts)
            self._bin = np.repeat(self.starts[:-1], counts) + within % np.repeat(kept, counts)
            self._weights = np.where(many, self._weights * signs, self._weights)

    def __call__(self, difference: np.ndarray) -> np.ndarray:
        """Of one difference, or of several, a row each."""
        weighted = difference * self._weights
        if not self._summed:
            return np.asarray(weighted)
        count = int(self.starts[-1])
        rows = [np.bincount(self._bin, each, minlength=count) for each in weighted.reshape(-1, weighted.shape[-1])]
        return np.array(rows).reshape(*weighted.shape[:-1], count)


class _Rows:
    """What `Samples` says of each step, a row a step, made of some steps at a time: of single ones with few samples
    the calls would cost more than the work."""

    def __init__(self, places: Places, sketch: _Sketch, multipliers: np.ndarray) -> None:
        self._places, self._sketch, self._multipliers = places, sketch, multipliers
        self._found: dict[str, list[np.ndarray]] = {}
        self._bits: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._first: np.ndarray | None = None
        self._before: np.ndarray | None = None  # the bits of the last step whose rows are made

    @property
    def first(self) -> np.ndarray:
        """x_0, 0 where it is not finite."""
        assert self._first is not None
        return self._first

    def add(self, bits: np.ndarray, values: np.ndarray) -> None:
        """The samples of the next step."""
        self._bits.append(bits)
        self._values.append(values)
        if (len(self._bits) + 1) * max(1, self._places.count) > AT_ONCE:
            self._make()

    def found(self) -> dict[str, np.ndarray]:
        """The rows of all steps, by name."""
        self._make()
        return {name: np.concatenate(each) for name, each in self._found.items()}

    def _make(self) -> None:
        if not self._bits:
            return
        bits, x, starts = np.array(self._bits), np.array(self._values), self._places.starts
        self._bits, self._values = [], []
        finite = np.isfinite(x)
        x = np.where(finite, x, 0.0)
        if self._first is None or self._before is None:
            self._first, self._before = x[0].copy(), bits[0]
        changed = bits != np.concatenate([self._before[None], bits[:-1]])
        self._before = bits[-1].copy()
        nonzero = (bits != 0).astype(np.int64)
        rows = {
            "moved": np.clip(self._sketch(x - self._first), -_LARGEST, _LARGEST).astype(np.float32),
            "prints": np.add.reduceat(bits * self._multipliers, starts, axis=1),
            "changed": np.add.reduceat(changed.astype(np.int64), starts, axis=1),
            "finite": np.logical_and.reduceat(finite, starts, axis=1),
            "zeros": np.add.reduceat(nonzero, starts, axis=1) == 0,
            "range_zero": np.add.reduceat(nonzero, self._places.range_starts, axis=1) == 0,
            "sums": np.add.reduceat(x, starts, axis=1),
            "squares": np.add.reduceat(x * x, starts, axis=1),
            "with_first": np.add.reduceat(x * self._first, starts, axis=1),
        }
        for name, each in rows.items():
            self._found.setdefault(name, []).append(each)


def read_samples(
    snapshots: Sequence[Snapshot],
    shapes: Mapping[str, tuple[int, ...]],
    progress: Callable[[float], object] = lambda _: None,
    much: Much = WHOLE,
) -> Samples | None:
    """Read the sample of each step, in order. None where no step can be read."""
    places = Places.of(shapes, much)
    numels = np.array([math.prod(shapes[name]) for name in places.names], float)
    most = KEPT_BYTES // (4 * max(1, len(snapshots) * len(places.names)))
    sketch = _Sketch(places, numels, max(4, min(COORDINATES, most)))
    multipliers = np.random.default_rng(1).integers(0, 2**63, places.count, np.uint64) * np.uint64(2) + np.uint64(1)
    steps: list[int] = []
    unreadable: dict[int, str] = {}
    rows = _Rows(places, sketch, multipliers)
    with ExtentReader() as reader:
        samples = SampleReader(places, reader)
        for snapshot in snapshots:
            try:
                bits, x = samples.read(snapshot.parameters)
            except StepFileError as error:
                unreadable[snapshot.step] = str(error)
                continue
            finally:
                progress(1)
            steps.append(snapshot.step)
            rows.add(bits, x)
        read = reader.bytes_read
    if not steps:
        return None
    found = rows.found()
    lengths = np.diff(np.append(places.range_starts, places.count))
    return Samples(
        tuple(steps),
        places.names,
        numels,
        np.diff(np.append(places.starts, places.count)),
        starts=sketch.starts,
        range_tensor=places.range_tensor,
        range_long=lengths >= LONG,
        first=rows.first,
        sketch=sketch,
        bytes=read,
        unreadable=unreadable,
        **found,
    )

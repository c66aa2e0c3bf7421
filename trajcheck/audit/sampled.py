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
        weighted = difference * self._weights
        if not self._summed:
            return weighted
        return np.bincount(self._bin, weighted, minlength=int(self.starts[-1]))


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
    rows: dict[str, list[np.ndarray]] = {name: [] for name in _ROWS}
    steps: list[int] = []
    unreadable: dict[int, str] = {}
    base = previous = None
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
            finite = np.isfinite(x)
            x = np.where(finite, x, 0.0)
            base = x if base is None else base
            previous = bits if previous is None else previous
            nonzero = np.add.reduceat((bits != 0).astype(np.int64), places.range_starts)
            steps.append(snapshot.step)
            rows["moved"].append(np.clip(sketch(x - base), -_LARGEST, _LARGEST).astype(np.float32))
            rows["prints"].append(np.add.reduceat(bits * multipliers, places.starts))
            rows["changed"].append(np.add.reduceat((bits != previous).astype(np.int64), places.starts))
            rows["finite"].append(np.logical_and.reduceat(finite, places.starts))
            rows["zeros"].append(np.add.reduceat((bits != 0).astype(np.int64), places.starts) == 0)
            rows["range_zero"].append(nonzero == 0)
            rows["sums"].append(np.add.reduceat(x, places.starts))
            rows["squares"].append(np.add.reduceat(x * x, places.starts))
            rows["with_first"].append(np.add.reduceat(x * base, places.starts))
            previous = bits
        read = reader.bytes_read
    if base is None:
        return None
    lengths = np.diff(np.append(places.range_starts, places.count))
    return Samples(
        tuple(steps),
        places.names,
        numels,
        np.diff(np.append(places.starts, places.count)),
        starts=sketch.starts,
        range_tensor=places.range_tensor,
        range_long=lengths >= LONG,
        first=base,
        sketch=sketch,
        bytes=read,
        unreadable=unreadable,
        **{name: np.array(each) for name, each in rows.items()},
    )


#: A run that diverges may hold numbers that float32 does not.
_LARGEST = float(np.finfo(np.float32).max)


#: What has a row a step.
_ROWS = ("moved", "prints", "changed", "finite", "zeros", "range_zero", "sums", "squares", "with_first")

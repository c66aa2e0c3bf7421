"""The streaming pass over pairs of iterates of two runs: inner products, chunk by chunk and block-major inside.

As in row_pass.py: for one block of elements a chunk's pairs are walked in order, so that both runs' iterates stay in
cache; each byte is read once but for a small halo, and peak memory depends neither on the size of the model nor on the
number of pairs. Only where B's units are put in another order (`reorder`) does a block hold one whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from trajcheck.errors import NotFiniteError, RunError
from trajcheck.files.extent_reader import BLOCK, BlockPiece, ExtentReader, blocks, length_of
from trajcheck.files.extents import Extent
from trajcheck.runs.divergence import not_finite, not_finite_error
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import Pair
from trajcheck.scalars.values import PairScalars
from trajcheck.stream.row_pass import CHUNK

#: A whole tensor by its name, in another order of its elements.
Reorder = Callable[[str, np.ndarray], np.ndarray]


def gather_pairs(
    a: Trajectory,
    b: Trajectory,
    pairs: Sequence[Pair],
    chords: Sequence[bool],
    *,
    by_tensor: bool = False,
    reorder: Reorder | None = None,
    chunk: int = CHUNK,
    block: int = BLOCK,
    progress: Callable[[float], object] = lambda pairs: None,
) -> Iterator[PairScalars]:
    """The scalars of each pair, in order; `chords` says where both runs have a d.

    Raises NotFiniteError, with run, step and tensor, at NaN or Inf.
    """
    numels = {name: math.prod(shape) for name, shape in a.shapes.items()}
    total = max(1, sum(numels.values()))
    cut = blocks(numels, block) if reorder is None else whole_tensors(numels)
    size = max((length_of(pieces) for pieces in cut), default=0)
    for begin in range(0, len(pairs), chunk):
        members = pairs[begin : begin + chunk]
        done = [PairScalars() for _ in members]
        work = _ChunkPass(a, b, members, chords[begin : begin + chunk], size, by_tensor, reorder)
        with ExtentReader() as reader:
            for pieces in cut:
                work.block(reader, pieces, done)
                progress(len(members) * length_of(pieces) / total)
            for pair, scalars in zip(members, done, strict=True):
                if not all(math.isfinite(value) for value in scalars.values):
                    _raise_not_finite(reader, a, b, pair)
        yield from done


def whole_tensors(numels: Mapping[str, int]) -> list[list[BlockPiece]]:
    """Blocks of one whole tensor each."""
    return [[BlockPiece(name, 0, numel, 0)] for name, numel in numels.items() if numel]


def same_model(a: Trajectory, b: Trajectory) -> None:
    """Raise RunError, listing both sides, unless both runs have the same parameters, of the same shapes."""
    only_a = [f"{name} {list(shape)}" for name, shape in a.shapes.items() if name not in b.shapes]
    only_b = [f"{name} {list(shape)}" for name, shape in b.shapes.items() if name not in a.shapes]
    other = [
        f"{name} {list(shape)} and {list(b.shapes[name])}"
        for name, shape in a.shapes.items()
        if name in b.shapes and b.shapes[name] != shape
    ]
    if not (only_a or only_b or other):
        return
    parts = [
        f"{what}: {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"
        for what, names in ((f"only {a.path} has", only_a), (f"only {b.path} has", only_b), ("shapes differ", other))
        if names
    ]
    raise RunError(
        f"{a.path} and {b.path} are runs of different models. {'; '.join(parts)}. Runs can be compared that have the "
        "same parameters, of the same shapes."
    )


class _ChunkPass:
    """What one chunk needs from each block; buffers are reused from block to block."""

    def __init__(
        self,
        a: Trajectory,
        b: Trajectory,
        pairs: Sequence[Pair],
        chords: Sequence[bool],
        size: int,
        by_tensor: bool,
        reorder: Reorder | None,
    ) -> None:
        self.pairs, self.chords, self.by_tensor = pairs, chords, by_tensor
        self.a, self.b = _Side(a, size), _Side(b, size, reorder)
        self.scratch = [np.empty(size) for _ in range(6)]

    def block(self, reader: ExtentReader, pieces: list[BlockPiece], done: Sequence[PairScalars]) -> None:
        """Add one block's share of every product to the pairs in `done`."""
        self.a.start(reader, pieces)
        self.b.start(reader, pieces)
        length = length_of(pieces)
        error, from_a, from_b, step_a, step_b, between = (buffer[:length] for buffer in self.scratch)
        for pair, chord, scalars in zip(self.pairs, self.chords, done, strict=True):
            self.a.forget(pair.place_a - 1)
            self.b.forget(pair.place_b - 1)
            x_a, x_b = self.a.at(pair.place_a), self.b.at(pair.place_b)
            before, after = pair.place_b - 1, pair.place_b
            if pair.interpolated:
                before, after = pair.near_b
                np.subtract(self.b.at(after), x_b, out=between)
                between *= pair.fraction
                between += x_b
                x_b = between
            vectors = {
                "error": np.subtract(x_a, x_b, out=error),
                "from_a": np.subtract(x_a, self.a.first(), out=from_a),
                "from_b": np.subtract(x_b, self.b.first(), out=from_b),
            }
            if chord:
                vectors["step_a"] = np.subtract(x_a, self.a.at(pair.place_a - 1), out=step_a)
                vectors["step_b"] = np.subtract(self.b.at(after), self.b.at(before), out=step_b)
            scalars.add(_products(vectors))
            for piece in pieces if self.by_tensor else ():
                part = slice(piece.offset, piece.offset + piece.stop - piece.start)
                share = scalars.tensors.setdefault(piece.name, PairScalars())
                share.add(_products({name: vector[part] for name, vector in vectors.items()}))


class _Side:
    """One run's iterates on a block, by place; those that are no longer needed give their buffers back."""

    def __init__(self, run: Trajectory, size: int, reorder: Reorder | None = None) -> None:
        self.run, self.size, self.reorder = run, size, reorder
        self.free: list[np.ndarray] = []
        self.held: dict[int, np.ndarray] = {}
        self.begin: np.ndarray | None = None

    def start(self, reader: ExtentReader, pieces: list[BlockPiece]) -> None:
        """Go on to another block."""
        self.forget(len(self.run.snapshots))
        if self.begin is not None:
            self.free.append(self.begin)
        self.begin, self.reader, self.pieces = None, reader, pieces

    def forget(self, before: int) -> None:
        """Iterates at smaller places are needed no more."""
        for place in [place for place in self.held if place < before]:
            self.free.append(self.held.pop(place))

    def first(self) -> np.ndarray:
        """The first recorded iterate."""
        if self.begin is None:
            self.begin = self._read(0)
        return self.begin[: length_of(self.pieces)]

    def at(self, place: int) -> np.ndarray:
        """x at a place."""
        if place not in self.held:
            self.held[place] = self._read(place)
        return self.held[place][: length_of(self.pieces)]

    def _read(self, place: int) -> np.ndarray:
        buffer = self.free.pop() if self.free else np.empty(self.size)
        filled = self.reader.wide_block(self.run.snapshots[place].parameters, self.pieces, buffer)
        if self.reorder is not None:
            name = self.pieces[0].name  # a block is one whole tensor here
            filled[:] = self.reorder(name, filled.reshape(self.run.shapes[name])).reshape(-1)
        return buffer


def _products(vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Those that overflow are not finite, which is told later."""
    error, from_a, from_b = vectors["error"], vectors["from_a"], vectors["from_b"]
    with np.errstate(all="ignore"):
        found = {
            "dist_sq": error @ error,
            "init_sq_a": from_a @ from_a,
            "init_sq_b": from_b @ from_b,
            "displacement_dot": from_a @ from_b,
        }
        if "step_a" in vectors:
            step_a, step_b = vectors["step_a"], vectors["step_b"]
            found |= {"step_sq_a": step_a @ step_a, "step_sq_b": step_b @ step_b, "step_dot": step_a @ step_b}
    return {name: float(value) for name, value in found.items()}


def _raise_not_finite(reader: ExtentReader, a: Trajectory, b: Trajectory, pair: Pair) -> None:
    """Find the NaN or Inf that spoilt a pair, and raise NotFiniteError for it."""
    for run, places in ((a, (0, pair.place_a - 1, pair.place_a)), (b, (0, pair.place_b - 1, *pair.near_b))):
        for place in places:
            snapshot = run.snapshots[max(0, place)]
            if tensor := not_finite(reader, snapshot.parameters, run.shapes):
                raise not_finite_error(snapshot, f"param/{tensor}")
    raise NotFiniteError(
        f"{a.path} at step {a.steps[pair.place_a]} and {b.path} at step {b.steps[pair.place_b]}: their inner products "
        "overflow float64; the numbers are too large."
    )


def pass_bytes(a: Trajectory, b: Trajectory, pairs: Sequence[Pair], chords: Sequence[bool], chunk: int = CHUNK) -> int:
    """How many bytes `gather_pairs` reads."""
    total = 0
    for begin in range(0, len(pairs), chunk):
        near: tuple[set[int], set[int]] = set(), set()
        for pair, chord in zip(pairs[begin : begin + chunk], chords[begin : begin + chunk], strict=True):
            near[0].update((pair.place_a, pair.place_a - 1) if chord else (pair.place_a,))
            near[1].update((*pair.near_b, pair.place_b - 1) if chord and not pair.interpolated else pair.near_b)
        for run, places in zip((a, b), near, strict=True):
            total += sum(_size(run.snapshots[place].parameters, run) for place in (0, *places))
    return total


def _size(tensors: Mapping[str, Extent], run: Trajectory) -> int:
    return sum(tensors[name].length for name in run.shapes)

"""A step that several ranks wrote, as one snapshot.

Each rank's file holds what that rank had: its batch, losses and generator states, and pieces of the vectors. A piece is
a whole tensor, or the box of one that begins at `offset` (metadata, by the tensor's name in the file, one number a
dimension) in a tensor of `shape`; in the tensor laid out flat it must be one contiguous range. Together the pieces of a
tensor are the whole tensor, each element once. Nothing is merged: a tensor's extent names the ranges of the files.

Ranks average their gradients, so f = 1/W sum_r f_r over W ranks, each rank weighing the same whatever its batch's size:
the step has the micro-batches of all ranks, in the ranks' order, each weight divided by W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from trajcheck.batch_tree import Tree, plain_tree
from trajcheck.errors import StepFileError
from trajcheck.snapshot import ITEM_SIZE, Extent, Extents, Part, Snapshot, Spec, Window

#: Norms that ranks computed of what must be equal on all of them differ by less.
AGREEMENT = 1e-3


class Box(NamedTuple):
    """Where a piece begins in its tensor, and that tensor's shape."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """One rank's file of a step: a snapshot of what it holds, and where its pieces belong, by name in the file."""

    rank: int
    snapshot: Snapshot
    sections: Mapping[str, Extents]  # param, grad, window
    boxes: Mapping[str, Box]
    replicated: Mapping[str, float]  # norms of what should be equal on all ranks, by kind


def join(shares: Sequence[Share], shares_of: Callable[[int], Sequence[Share]]) -> Snapshot:
    """The step of these shares, in the order of their ranks; `shares_of` gives those of another step, by number.

    Raises StepFileError, naming file, step and tensor, where the shares do not make one step.
    """
    first = shares[0].snapshot
    for name, meaning in (("lr", "learning rates"), ("tau", "sums of rates"), ("frozen_from", "frozen parameters")):
        for share in shares[1:]:
            _same(first, share.snapshot, name, meaning)
    _check_replicated(shares)
    snapshots = [share.snapshot for share in shares]
    clips = [snapshot.clip for snapshot in snapshots]
    known = [clip for clip in clips if clip is not None and math.isclose(clip, clips[0] or 0.0, rel_tol=1e-5)]
    losses = [snapshot.loss for snapshot in snapshots if snapshot.loss is not None]
    window = _window(snapshots)
    whole = replace(
        first,
        parameters=_section("param", shares),
        gradients=_section("grad", shares),
        window_gradient={} if window is None else _section("window", shares),
        window=window,
        loss=math.fsum(losses) / len(losses) if len(losses) == len(shares) else None,
        clip=clips[0] if len(known) == len(clips) else None,
        skipped=any(snapshot.skipped for snapshot in snapshots),
    )
    if whole.window is not None and not whole.window_gradient:
        raise StepFileError(f"{first.path}: metadata 'window' without tensors window/... in step {first.step}.")
    if not whole.parameters:
        raise StepFileError(f"{first.path}: no tensor 'param/...' in any file of step {first.step}.")
    return _with_batches(whole, shares, shares_of)


def _section(section: str, shares: Sequence[Share]) -> Mapping[str, Extent]:
    """The tensors of a section; those of the one rank that stores any, where it stores them whole."""
    holders = [share for share in shares if share.sections[section]]
    if len(holders) == 1 and not holders[0].boxes:
        return holders[0].sections[section]
    return Pieces(section, shares)


class Pieces(Mapping[str, Extent]):
    """Lazy view of the tensors of a section, whose pieces lie in the files of several ranks."""

    __slots__ = ("_sources", "_table")

    def __init__(self, section: str, shares: Sequence[Share]) -> None:
        self._sources = [share.sections[section] for share in shares]
        layouts = tuple(_described(share, source) for share, source in zip(shares, self._sources, strict=True))
        try:
            self._table = _table(section, layouts)
        except ValueError as error:
            snapshot = shares[0].snapshot
            raise StepFileError(
                f"{snapshot.path} and the other ranks' files of step {snapshot.step}: {error}"
            ) from error

    def __getitem__(self, name: str) -> Extent:
        shape, places = self._table[name]
        found = [(place, self._sources[place.rank][name]) for place in places]
        (_, extent), *others = found
        if not others:
            return extent._replace(shape=shape)
        parts = tuple(Part(place.begin, place.begin + e.length, e.path, e.offset) for place, e in found)
        return Extent(extent.path, extent.offset, parts[-1].end, extent.dtype, shape, parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


class _Place(NamedTuple):
    """Bytes [begin, end) of a tensor are in the file of a rank."""

    begin: int
    end: int
    rank: int


def _described(share: Share, source: Extents) -> tuple[tuple[tuple[str, str, Spec], ...], tuple[tuple[str, Box], ...]]:
    """(name shown, name in the file, where in the file) of each tensor, and the boxes by name in the file."""
    specs, names = source.layout
    layout = tuple((name, stored, specs[stored]) for name, stored in names.items())
    return layout, tuple((stored, share.boxes[stored]) for stored in names.values() if stored in share.boxes)


Layouts = tuple[tuple[tuple[tuple[str, str, Spec], ...], tuple[tuple[str, Box], ...]], ...]


@lru_cache(maxsize=64)
def _table(section: str, layouts: Layouts) -> dict[str, tuple[tuple[int, ...], list[_Place]]]:
    """{name: (shape, where its pieces begin)}: the same for all steps that were written alike. Raises ValueError."""
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    places: dict[str, list[_Place]] = {}
    for rank, (layout, boxes) in enumerate(layouts):
        by_name = dict(boxes)
        for name, stored, spec in layout:
            box = by_name.get(stored, Box((0,) * len(spec.shape), spec.shape))
            begin = _start(stored, spec.shape, box, rank) * ITEM_SIZE[spec.dtype]
            known = kinds.setdefault(name, (spec.dtype, box.shape))
            if known != (spec.dtype, box.shape):
                raise ValueError(
                    f"tensor {section}/{name} is {spec.dtype} of shape {list(box.shape)} for rank {rank}, and "
                    f"{known[0]} of shape {list(known[1])} for a rank before it"
                )
            places.setdefault(name, []).append(_Place(begin, begin + spec.end - spec.begin, rank))
    return {
        name: (kinds[name][1], _in_order(f"{section}/{name}", *kinds[name], found)) for name, found in places.items()
    }


def _start(name: str, held: tuple[int, ...], box: Box, rank: int) -> int:
    """The element of the flat tensor at which a piece of shape `held` begins. Raises ValueError."""
    offset, shape = box
    inside = len(offset) == len(shape) == len(held) and all(
        start + length <= whole for start, length, whole in zip(offset, held, shape, strict=True)
    )
    if not inside:
        raise ValueError(
            f"tensor {name} of rank {rank} is a piece of shape {list(held)} from {list(offset)} on, which does not lie "
            f"in a tensor of shape {list(shape)}"
        )
    cut = next((i for i, length in enumerate(held) if length != 1), len(held))
    if math.prod(held) and held[cut + 1 :] != shape[cut + 1 :]:
        raise ValueError(
            f"tensor {name} of rank {rank} is a piece of shape {list(held)} of a tensor of shape {list(shape)}, not "
            "one range of its elements; expected it cut along the first dimension"
        )
    start = 0
    for place, length in zip(offset, shape, strict=True):
        start = start * length + place
    return start


def _in_order(name: str, dtype: str, shape: tuple[int, ...], found: list[_Place]) -> list[_Place]:
    """The pieces in order; every element must be in one of them, and in no other. Raises ValueError."""
    item, position, before = ITEM_SIZE[dtype], 0, -1
    filled = sorted(place for place in found if place.end > place.begin) or found[:1]
    for place in filled:
        if place.begin < position:
            raise ValueError(
                f"tensor {name} of shape {list(shape)}: its element {place.begin // item:,} is in the files of rank "
                f"{before} and of rank {place.rank}; expected it once"
            )
        if place.begin > position:
            break
        position, before = place.end, place.rank
    if position != math.prod(shape) * item:
        raise ValueError(f"tensor {name} of shape {list(shape)}: its element {position // item:,} is in no rank's file")
    return filled


def _same(first: Snapshot, other: Snapshot, name: str, meaning: str) -> None:
    if getattr(first, name) != getattr(other, name):
        raise StepFileError(
            f"{other.path}: metadata {name!r} is {getattr(other, name)}, and {getattr(first, name)} in {first.path}; "
            f"expected the same {meaning} on all ranks."
        )


def _check_replicated(shares: Sequence[Share]) -> None:
    """What only the first rank stores must have been the same on all, or its gradient is not that of all batches."""
    for share in shares[1:]:
        for kind, norm in share.replicated.items():
            expected = shares[0].replicated.get(kind, norm)
            if not math.isclose(norm, expected, rel_tol=AGREEMENT):
                raise StepFileError(
                    f"{share.snapshot.path}: the norm of the {kind}s that rank 0 stores for all was {norm:.6g} here, "
                    f"and {expected:.6g} on rank 0. Ranks must train one model on averaged gradients: was the forward "
                    "pass that of the DistributedDataParallel module?"
                )


def _window(snapshots: Sequence[Snapshot]) -> Window | None:
    """Sums over pieces add up, and the loss is the mean over the ranks. None where a rank has none."""
    windows = [snapshot.window for snapshot in snapshots if snapshot.window is not None]
    if len(windows) < len(snapshots):
        return None
    first = windows[0]
    if any((w.start, w.steps) != (first.start, first.steps) for w in windows):
        raise StepFileError(f"{snapshots[0].path}: metadata 'window' is not that of the other ranks' files.")
    losses = [window.loss_sum for window in windows if window.loss_sum is not None]
    squares = [window.grad_sq_sum for window in windows if window.grad_sq_sum is not None]
    return Window(
        first.start,
        first.steps,
        math.fsum(window.grad_dot_offset for window in windows),
        math.fsum(losses) / len(losses) if len(losses) == len(windows) else None,
        math.fsum(squares) if len(squares) == len(windows) else None,
    )


def _with_batches(whole: Snapshot, shares: Sequence[Share], shares_of: Callable[[int], Sequence[Share]]) -> Snapshot:
    """The step with the micro-batches of all ranks, their generator states and buffers."""
    sources = [share.snapshot for share in shares]
    shared = {source.batch_from for source in sources if source.batch_from != source.step}
    batch_from = next(iter(shared)) if len(shared) == 1 and not any(source.batch for source in sources) else None
    if batch_from is None and shared - {None}:
        sources = [_source(share, shares_of) for share in shares]
    counts = [source.micro_batches for source in sources]
    weights = [
        weight / len(shares)
        for share, source in zip(shares, sources, strict=True)
        for weight in share.snapshot.micro_weights or source.micro_weights or _even(source.micro_batches)
    ]
    starts = [sum(counts[:rank]) for rank in range(len(counts))]
    stored = all(source.batch for source in sources)
    return replace(
        whole,
        batch=_ByRank([source.batch for source in sources]) if stored else {},
        batch_tree=_batch_tree(sources) if stored else None,
        batch_from=batch_from,
        micro_batches=sum(counts),
        micro_weights=tuple(weights) if batch_from is None else None,
        generators=_generators(shares, counts),
        rank_buffers={
            start: share.snapshot.buffers
            for start, share in zip(starts[1:], shares[1:], strict=True)
            if share.snapshot.buffers
        },
    )


def _source(share: Share, shares_of: Callable[[int], Sequence[Share]]) -> Snapshot:
    """Where a rank's batch is stored, where not all ranks' are in one step."""
    snapshot = share.snapshot
    if snapshot.batch or snapshot.batch_from in (None, snapshot.step):
        return snapshot
    found = [other for other in shares_of(int(snapshot.batch_from or 0)) if other.rank == share.rank]
    return found[0].snapshot if found else snapshot


def _even(count: int) -> tuple[float, ...]:
    return (1 / count,) * count


class _ByRank(Mapping[str, Extent]):
    """The batches of several ranks: `<rank>/<path>`."""

    __slots__ = ("_batches",)

    def __init__(self, batches: Sequence[Mapping[str, Extent]]) -> None:
        self._batches = batches

    def __getitem__(self, name: str) -> Extent:
        rank, _, path = name.partition("/")
        if not rank.isdigit() or int(rank) >= len(self._batches):
            raise KeyError(name)
        return self._batches[int(rank)][path]

    def __iter__(self) -> Iterator[str]:
        return (f"{rank}/{path}" for rank, batch in enumerate(self._batches) for path in batch)

    def __len__(self) -> int:
        return sum(map(len, self._batches))


def _batch_tree(sources: Sequence[Snapshot]) -> Tree:
    """The tree of the tuple of all micro-batches, over the names of `_ByRank`."""
    parts: list[Tree] = []
    for rank, source in enumerate(sources):
        tree = _under(rank, plain_tree(source.batch) if source.batch_tree is None else source.batch_tree)
        if source.micro_batches == 1:
            parts.append(tree)
            continue
        members = tree.get("tuple", tree.get("list"))
        if not isinstance(members, list) or len(members) != source.micro_batches:
            raise StepFileError(
                f"{source.path}: {source.micro_batches} micro-batches were announced, and the batch is not a tuple of "
                "as many."
            )
        parts += members
    return {"tuple": parts}


def _under(rank: int, tree: Any) -> Any:
    """A tree whose tensors' names begin with a rank."""
    if isinstance(tree, dict) and len(tree) == 1:
        (kind, content), *_ = tree.items()
        if kind == "tensor":
            return {"tensor": f"{rank}/{content}"}
        if kind == "dict" and isinstance(content, dict):
            return {"dict": {key: _under(rank, child) for key, child in content.items()}}
        if kind in ("list", "tuple") and isinstance(content, list):
            return {kind: [_under(rank, child) for child in content]}
    return tree


def _generators(shares: Sequence[Share], counts: Sequence[int]) -> dict[str, Extent]:
    """The generator states of all micro-batches by type of device; none where a rank has not as many as batches.

    Each rank has one device of a type, under its own number.
    """
    by_kind: dict[str, list[Extent]] = {}
    for share, count in zip(shares, counts, strict=True):
        own: dict[str, Extent] = {}
        for name, state in share.snapshot.generators.items():
            own.setdefault(name.partition(":")[0], state)
        for kind, state in own.items():
            if state.numel == count * state.shape[-1]:
                by_kind.setdefault(kind, []).append(state)
    result = {}
    for kind, states in by_kind.items():
        if len(states) == len(shares) and len({state.shape[-1] for state in states}) == 1:
            parts, position = [], 0
            for state in states:
                parts.append(Part(position, position + state.length, state.path, state.offset))
                position += state.length
            first = states[0]
            result[kind] = Extent(
                first.path, first.offset, position, "U8", (sum(counts), first.shape[-1]), tuple(parts)
            )
    return result

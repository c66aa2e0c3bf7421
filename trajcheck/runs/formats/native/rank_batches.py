"""The batches of several ranks as the micro-batches of one step.

Ranks average their gradients, so f = 1/W sum_r f_r over W ranks, each rank weighing the same whatever its batch's size:
the step has the micro-batches of all ranks, in the ranks' order, each weight divided by W.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent, Part
from trajcheck.runs.batch_tree import Tree, plain_tree, renamed
from trajcheck.runs.snapshot import Snapshot


def with_batches(
    whole: Snapshot, ranks: Sequence[Snapshot], stored_in: Callable[[int, int], Snapshot | None]
) -> Snapshot:
    """The step with the micro-batches of all ranks, their generator states and buffers.

    `ranks` are what each rank's file holds; `stored_in(step, rank)` gives that of another step. Raises StepFileError.
    """
    sources = list(ranks)
    shared = {source.batch_from for source in sources if source.batch_from != source.step}
    batch_from = next(iter(shared)) if len(shared) == 1 and not any(source.batch for source in sources) else None
    if batch_from is None and shared - {None}:
        sources = [_source(rank, snapshot, stored_in) for rank, snapshot in enumerate(ranks)]
    counts = [source.micro_batches for source in sources]
    weights = [
        None if weight is None else weight / len(ranks)
        for snapshot, source in zip(ranks, sources, strict=True)
        for weight in snapshot.micro_weights or source.micro_weights or _even(source.micro_batches)
    ]
    forwards = [snapshot.forwards or (1,) * count for snapshot, count in zip(ranks, counts, strict=True)]
    starts = [sum(counts[:rank]) for rank in range(len(counts))]
    stored = all(source.batch for source in sources)
    return replace(
        whole,
        batch=_ByRank([source.batch for source in sources]) if stored else {},
        batch_tree=_batch_tree(sources) if stored else None,
        batch_from=batch_from,
        micro_batches=sum(counts),
        micro_weights=tuple(weights) if batch_from is None else None,
        generators=_generators(ranks, [sum(each) for each in forwards]),
        forwards=tuple(itertools.chain(*forwards)) if any(max(each) > 1 for each in forwards) else (),
        rank_buffers={
            start: snapshot.buffers for start, snapshot in zip(starts[1:], ranks[1:], strict=True) if snapshot.buffers
        },
    )


def _source(rank: int, snapshot: Snapshot, stored_in: Callable[[int, int], Snapshot | None]) -> Snapshot:
    """Where a rank's batch is stored, where not all ranks' are in one step."""
    if snapshot.batch or snapshot.batch_from in (None, snapshot.step):
        return snapshot
    return stored_in(int(snapshot.batch_from or 0), rank) or snapshot


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
        own = plain_tree(source.batch) if source.batch_tree is None else source.batch_tree
        tree = renamed(own, f"{rank}/{{}}".format)
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


def _generators(ranks: Sequence[Snapshot], counts: Sequence[int]) -> dict[str, Extent]:
    """The generator states of all micro-batches by type of device; none where a rank has not as many as it counts.

    Each rank has one device of a type, under its own number.
    """
    by_kind: dict[str, list[Extent]] = {}
    for snapshot, count in zip(ranks, counts, strict=True):
        own: dict[str, Extent] = {}
        for name, state in snapshot.generators.items():
            own.setdefault(name.partition(":")[0], state)
        for kind, state in own.items():
            if state.numel == count * state.shape[-1]:
                by_kind.setdefault(kind, []).append(state)
    result = {}
    for kind, states in by_kind.items():
        if len(states) == len(ranks) and len({state.shape[-1] for state in states}) == 1:
            parts, position = [], 0
            for state in states:
                parts.append(Part(position, position + state.length, state.path, state.offset))
                position += state.length
            first = states[0]
            result[kind] = Extent(
                first.path, first.offset, position, "U8", (sum(counts), first.shape[-1]), tuple(parts)
            )
    return result

"""Which tensors an optimizer trains, and in which group each is, where their order is not known: by their shapes.

A safetensors file sorts its tensors, so that the order of the model is lost. Where as many tensors have a shape as the
optimizer trains, all of them are trained, and where it trains none, none is. A shape that several groups train is
shared out by names, as libraries do it: biases and norms are in the group without weight decay. What the numbers do
not bear out is unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

Shape = tuple[int, ...]

_UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)|(?:^|\.)ln_", re.IGNORECASE)


def by_shapes(
    groups: Sequence[Sequence[Shape | None]], decays: Sequence[bool], tensors: Mapping[str, Shape]
) -> tuple[frozenset[str] | None, dict[str, int]]:
    """What is trained, None where that is not known, and the group of each, as far as it is; `groups` are the shapes
    of what each trains, `decays` whether its weights decay."""
    every = frozenset(tensors) if sum(map(len, groups)) == len(tensors) else None
    own = Counter(shape for group in groups for shape in group if shape is not None)
    there = Counter(tensors.values())
    unknown = any(shape is None for group in groups for shape in group)
    if unknown or not own.keys() <= there.keys() or any(count != there[shape] for shape, count in own.items()):
        return every, dict.fromkeys(tensors, 0) if every and len(groups) == 1 else {}
    trained = frozenset(name for name, shape in tensors.items() if shape in own)
    group_of: dict[str, int] = {}
    for shape in own:
        names = [name for name in tensors if tensors[name] == shape]
        counts = [group.count(shape) for group in groups]
        if max(counts) == len(names):
            group_of.update(dict.fromkeys(names, counts.index(len(names))))
        else:
            group_of.update(_shared_out(names, counts, decays))
    return trained, group_of


def _shared_out(names: Sequence[str], counts: Sequence[int], decays: Sequence[bool]) -> dict[str, int]:
    """Of two groups, one of them without decay; empty where the numbers are others."""
    if sorted(decays) != [False, True]:
        return {}
    group_of = {name: decays.index(not _UNDECAYED.search(name)) for name in names}
    found = Counter(group_of.values())
    return group_of if all(found[place] == count for place, count in enumerate(counts)) else {}

"""Single tensors and groups of them: what layers.csv has rows for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from trajcheck.scalars.values import RowScalars, summed
from trajcheck.tables.source import Source


def groups_of(names: Sequence[str], patterns: Sequence[str]) -> dict[str, list[str]]:
    """Tensors by the label of their row: what the first pattern that is found in the name matched (its first group,
    if it has one), else the name itself."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_label(name, patterns), []).append(name)
    return groups


def _label(name: str, patterns: Sequence[str]) -> str:
    for pattern in patterns:
        if match := re.search(pattern, name):
            return (match.re.groups and match[1]) or match[0] or name
    return name


def layer_source(source: Source, tensors: Sequence[str]) -> Source:
    """The shares that some tensors have in the scalars of every row."""
    scalars, second = (
        {p: _shares(row, tensors) for p, row in each.items()} for each in (source.scalars, source.second)
    )
    batches = {p: [_shares(row, tensors) for row in each] for p, each in source.batches.items()}
    return replace(source, scalars=scalars, second=second, batches=batches, whole=source)


def _shares(row: RowScalars, tensors: Sequence[str]) -> RowScalars:
    shares = {name: row.tensors[name] for name in tensors if name in row.tensors}
    if len(shares) == 1:  # as they stand: nothing is added to them
        (share,) = shares.values()
        return RowScalars(share.own, share.references, shares)
    found = summed(shares.values()) if shares else row.keep((), ())
    found.tensors = shares
    return found


def not_empty(source: Source) -> list[str]:
    """The tensors that have elements."""
    return [name for name in source.trajectory.shapes if numel(source, [name])]


def numel(source: Source, tensors: Sequence[str]) -> int:
    """How many parameters some tensors hold."""
    return sum(math.prod(source.trajectory.shapes[name]) for name in tensors)

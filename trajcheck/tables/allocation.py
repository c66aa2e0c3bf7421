"""The columns of allocation.csv: of single tensors, of those that an expression puts together, of parameter groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.formulas.other_tables.allocation import lowered, raised
from trajcheck.metrics.quantity import ALLOCATION
from trajcheck.tables.allocation_operands import Chords, OfTensor
from trajcheck.tables.layers import groups_of, layer_source, not_empty
from trajcheck.tables.samples import SE, Measured, over_batches
from trajcheck.tables.source import Source


@dataclass(frozen=True)
class Part:
    """Tensors whose allocation stands in a row: `tensor` is their name, '' for a whole parameter group; `group` the
    number of their parameter group, '' where they are of several, or nobody knows."""

    tensor: str
    group: str
    tensors: Sequence[str]


def parts_of(source: Source, patterns: Sequence[str]) -> list[Part]:
    """Each tensor once, in the order of the run; then the parameter groups, where there are several."""
    known, names = source.trajectory.info.group_of, not_empty(source)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(str(known[name]) if name in known else "", []).append(name)

    def group(tensors: Sequence[str]) -> str:
        found = [number for number, members in groups.items() if set(tensors) <= set(members)]
        return found[0] if found else ""

    of_tensor = {name: number for number, members in groups.items() for name in members}
    parts = [
        Part(label, of_tensor[tensors[0]] if len(tensors) == 1 else group(tensors), tensors)
        for label, tensors in groups_of(names, patterns).items()
    ]
    several = len(groups) > 1 and "" not in groups
    return parts + [Part("", number, members) for number, members in sorted(groups.items()) if several]


def allocations(measured: Measured, parts: Sequence[Part]) -> Iterator[tuple[Part, Mapping[str, Column]]]:
    """The columns of each part on one sample convention, one part at a time."""
    chords = [Chords(source) for source in measured.sources]
    holds = {"allocate", *(("thinned",) if chords[0].of_all.thinned else ())}
    for part in parts:
        each = []
        for of_all in chords:
            alone = replace(of_all.source, second={})  # which no column of a single tensor looks at here
            columns = OfTensor(layer_source(alone, part.tensors), of_all).columns(holds)
            each.append({**columns, "every_sum": of_all.sum, "every_error": of_all.error})
        if measured.sample == "probe":
            yield part, _judged(over_batches(ALLOCATION, each), measured.sources[0])
        else:
            yield part, each[0]


def _judged(columns: dict[str, Column], source: Source) -> dict[str, Column]:
    """What the mean over batches raised and lowered: its sign is not certain within its standard error."""
    resolution, error = columns["allocation_resolution"], columns["allocation" + SE]
    limit = Column(np.fmax(resolution.values, error.values), resolution.reasons)
    weights = source.rows.pair_weights(source.sample)
    for name, made in (("raised", raised), ("lowered", lowered)):
        columns[name] = made(columns["allocation"], limit, weights)
        del columns[name + SE]
    return columns

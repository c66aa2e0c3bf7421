"""Tensors whose scale does not matter, and how much of the distance to a reference lies in them (NWT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.runs.references import Reference
from trajcheck.tables.layers import layer_source, numel
from trajcheck.tables.operands import Operands
from trajcheck.tables.source import Source

#: Rows on which radial_cos is looked at when nobody asked for layers, and the fewest that can tell anything.
ROWS, ENOUGH = 16, 4

#: A direction at random has |radial_cos| of about 1 / sqrt(numel). A tensor counts as scale-invariant where the root
#: mean square over the rows is below this share of it, and below the limit: a normalisation's epsilon leaves some.
SHARE, LIMIT = 0.1, 1e-2


@dataclass(frozen=True)
class ScaleInvariant:
    """`tensors` by name, and for each reference their mean share of |x_t - x*|^2 over the rows looked at."""

    tensors: tuple[str, ...]
    shares: dict[str, float | None]


def scale_invariant(source: Source, references: Sequence[Reference]) -> ScaleInvariant | None:
    """The tensors with <g_w, w> = 0 on every row looked at; None where too few rows have a gradient."""
    names, found, looked_at = list(source.trajectory.shapes), [], 0
    for name in names:
        radial = Operands(layer_source(source, [name]))["radial_cos"]
        values = radial.values[radial.defined]
        looked_at = max(looked_at, len(values))
        size = numel(source, [name])
        if len(values) < ENOUGH or size < 2:
            continue
        if np.sqrt(np.mean(values**2)) < min(LIMIT, SHARE / size**0.5):
            found.append(name)
    if looked_at < ENOUGH:
        return None
    shares = {reference.spec: _share(source, number, found) for number, reference in enumerate(references)}
    return ScaleInvariant(tuple(found), shares)


def _share(source: Source, number: int, names: Sequence[str]) -> float | None:
    shares = []
    for row in source.rows.rows:
        scalars = source.scalars[row.place]
        whole = scalars.references[number].ref_sq
        if scalars.tensors and whole:
            parts = (scalars.tensors[name].references[number].ref_sq or 0.0 for name in names)
            shares.append(sum(parts) / whole)
    return float(np.mean(shares)) if shares else None

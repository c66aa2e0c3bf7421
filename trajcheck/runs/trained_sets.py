"""Runs whose trained parameters change on the way: gradual unfreezing, groups that come and go.

The space of such a run is the union of what was ever trained. A parameter that is frozen at a step lies in it where it
was frozen, and the gradient of that step is 0 in it: the optimizer used none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trajcheck.files.extents import ITEM_SIZE, ZEROS, Extent
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot


def changing_parameters(info: RunInfo, snapshots: Sequence[Snapshot]) -> dict[str, tuple[int, ...]]:
    """The parameters that some steps train, or train in other groups, and others do not, with their shapes."""
    known = {**info.frozen, **info.parameters}
    names = dict.fromkeys(name for snapshot in snapshots for name in snapshot.trained)
    return {name: known[name] for name in names if name in known}


def in_the_union(
    info: RunInfo, snapshot: Snapshot, shapes: Mapping[str, tuple[int, ...]], changing: Mapping[str, tuple[int, ...]]
) -> Snapshot:
    """The step with all parameters of the union; those that it does not train stand in `held`."""
    trained = snapshot.trained
    held = frozenset(n for n in changing if (trained[n] is None if n in trained else n not in info.parameters))
    found = {name: snapshot.frozen[name] for name in changing if name in snapshot.frozen}
    zeros = {name: _zeros(found[name]) for name in held if name in found}
    parameters = {**snapshot.parameters, **found}
    return replace(
        snapshot,
        parameters={name: parameters[name] for name in parameters if name in shapes},
        frozen={name: extent for name, extent in snapshot.frozen.items() if name not in changing},
        gradients={**zeros, **snapshot.gradients} if snapshot.gradients else snapshot.gradients,
        window_gradient=_filled(snapshot, found) if snapshot.window is not None else snapshot.window_gradient,
        held=held,
    )


def _filled(snapshot: Snapshot, found: Mapping[str, Extent]) -> Mapping[str, Extent]:
    """A window's sums: 0 of what was not trained in it."""
    return {**{name: _zeros(extent) for name, extent in found.items()}, **snapshot.window_gradient}


def _zeros(like: Extent) -> Extent:
    return Extent(ZEROS, 0, math.prod(like.shape) * ITEM_SIZE[like.dtype], like.dtype, like.shape)

"""References of other runs, their units put in the order in which they lie nearest to this run's last iterate.

Two runs of one architecture differ by the order of their hidden units, which changes nothing but makes an x* of the
other run needlessly far. The permuted x* is another point: it has its own key, and is written once, as an average is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajcheck.errors import UsageError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.kept_vectors import Workspace, kept_vector
from trajcheck.permutations.declared import Permutations, check_permutations
from trajcheck.permutations.weight_matching import Matched, match_points, wide_tensor
from trajcheck.runs.independence.dependence import Dependence
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Shapes, Trajectory

if TYPE_CHECKING:
    from trajcheck.permutations.loss_check import SymmetryCheck


@dataclass(frozen=True)
class Matching:
    """How units were put in order: distances of x* from the last iterate, and losses at x*, as it was and permuted;
    sweeps of the descent; how many of the units moved."""

    before: float
    after: float
    loss_before: float
    loss_after: float
    sweeps: int
    moved: int
    units: int


def permute_references(
    references: Sequence[Reference], trajectory: Trajectory, objective: Any, spec: str, workspace: Workspace
) -> tuple[list[Reference], dict[str, Matching]]:
    """The references, those of other runs and files permuted into files in `workspace`, and by spec how that went.

    An iterate (or average) of the analyzed run stays as it is, and so does a point that nothing brings nearer.
    Errors: UsageError where no reference is of another run; ObjectiveError for PERMUTATIONS that are missing, do not
    fit the run, or do not leave the loss at x* as it is.
    """
    from trajcheck.permutations.loss_check import SymmetryCheck

    permutations = check_permutations(objective.permutations, spec, trajectory.shapes, trajectory.info.tied)
    if all(reference.own_steps for reference in references):
        raise UsageError(
            f"--match-permutations: every reference ({', '.join(each.spec for each in references)}) is a point of the "
            "analyzed run, whose units are in order already. Give --ref OTHER_RUN, or leave the option out."
        )
    check = SymmetryCheck(objective, trajectory)
    result, matchings = [], {}
    for reference in references:
        permuted = reference
        if not reference.own_steps:
            title = f"the reference {reference.spec}"
            matched, matchings[reference.spec] = match_to(reference.parameters, title, trajectory, permutations, check)
            permuted = permuted_reference(reference, trajectory.shapes, matched, workspace)
        result.append(permuted)
    return result, matchings


def match_runs(a: Trajectory, b: Trajectory, objective: Any, spec: str) -> tuple[Matched, Matching]:
    """The orders in which run B's last iterate lies nearest to run A's, checked on a sample of A, and how that went.

    `Matched.permute` brings any tensor of B (iterate or gradient, whole) into A's order, `Matched.inverse.permute` one
    of A into B's. The runs are of one model, and `objective` is that of `spec`, FILE.py:NAME. Raises ObjectiveError as
    `permute_references` does.
    """
    from trajcheck.permutations.loss_check import SymmetryCheck

    permutations = check_permutations(objective.permutations, spec, a.shapes, a.info.tied)
    check = SymmetryCheck(objective, a)
    return match_to(b.snapshots[-1].parameters, f"the last iterate of {b.path}", a, permutations, check)


def match_to(
    point: Mapping[str, Extent], title: str, trajectory: Trajectory, permutations: Permutations, check: SymmetryCheck
) -> tuple[Matched, Matching]:
    """The orders in which a recorded point lies nearest to the run's last iterate, and how that went; `title` names the
    point in errors. Raises ObjectiveError where the loss at the point is not left as it is."""
    last = trajectory.snapshots[-1].parameters
    matched = match_points(permutations, last, point)
    losses = check.losses(point, matched, title)
    before, after = (_distance(last, point, trajectory, each) for each in (None, matched))
    units = sum(group.size for group in permutations.groups)
    return matched, Matching(before, after, *losses, matched.sweeps, matched.moved, units)


def permuted_reference(reference: Reference, shapes: Shapes, matched: Matched, workspace: Workspace) -> Reference:
    """The permuted point P x*, exact (float32 or float64), in a file of its own, one tensor in memory at a time; the
    same reference where no unit moves."""
    if not matched.moved:
        return reference
    key = f"{reference.key}/permuted:{matched.key}"
    extents = {name: reference.parameters[name] for name in shapes}
    dtype = np.dtype("<f8") if any(extent.dtype == "F64" for extent in extents.values()) else np.dtype("<f4")
    with ExtentReader() as reader:
        current: dict[str, np.ndarray] = {}

        def values(name: str, start: int, stop: int) -> np.ndarray:
            if name not in current:
                current.clear()
                current[name] = matched.permute(name, wide_tensor(reader, extents[name])).reshape(-1).astype(dtype)
            return current[name][start:stop]

        parameters = kept_vector(workspace, "permuted", key, reference.files, shapes, dtype, values)
    order = Dependence(found="its units were put in the order in which they lie nearest to this run's last iterate")
    return replace(reference, key=key, parameters=parameters, dependence=order)


def _distance(
    a: Mapping[str, Extent], b: Mapping[str, Extent], trajectory: Trajectory, matched: Matched | None
) -> float:
    """|a - P b|, the differences formed in float64, tensor by tensor."""
    total = 0.0
    with ExtentReader() as reader:
        for name in trajectory.shapes:
            other = wide_tensor(reader, b[name])
            if matched is not None:
                other = matched.permute(name, other)
            difference = (wide_tensor(reader, a[name]) - other).reshape(-1)
            total += float(difference @ difference)
    return math.sqrt(total)

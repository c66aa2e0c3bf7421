"""Each run measured towards the other's last iterate, in its own order of units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trajcheck.commands.compare.stages import OrderedRun
from trajcheck.files.kept_vectors import Workspace
from trajcheck.measuring.measured_columns import MeasuredColumns
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.permutations.permuted_references import permuted_reference
from trajcheck.permutations.weight_matching import Matched
from trajcheck.runs.references import Reference, files_of
from trajcheck.runs.trajectory import Trajectory
from trajcheck.tables.comparison import Side


@dataclass(frozen=True)
class Sides:
    """`columns` by the path of each run, A's first; `pairs` those of A and of the other run, for each other run."""

    columns: dict[str, MeasuredColumns]
    pairs: list[tuple[Side, Side]]


def measure_sides(
    a: Trajectory,
    others: Sequence[OrderedRun],
    opened: Callable[[Trajectory], MeasuredRun],
    workspace: Workspace,
) -> Sides:
    """`opened` makes of a run what measures it; points in another order of units are kept in the workspace."""
    to_a = [_in_order(last_iterate(each.run), each.run, each.matched, workspace) for each in others]
    one = opened(a)
    of_a = one.measure(to_a)
    found = Sides({str(a.path): of_a}, [])
    for each, reference in zip(others, to_a, strict=True):
        back = _in_order(last_iterate(a), a, each.matched and each.matched.inverse, workspace)
        other = opened(each.run)
        of_b = other.measure([back])
        found.columns[each.path] = of_b
        found.pairs.append((_side(one, of_a, reference), _side(other, of_b, back)))
    return found


def last_iterate(run: Trajectory) -> Reference:
    """The last iterate of a run as a reference point."""
    last = run.snapshots[-1]
    key = f"{run.path}/step:{last.step}"  # ids can be one, where hashes of first steps stand for them
    files = files_of(last.parameters, last.frozen, last.buffers)
    return Reference(str(run.path), key, last.parameters, files=files, frozen=last.frozen, buffers=last.buffers)


def _in_order(reference: Reference, run: Trajectory, matched: Matched | None, workspace: Workspace) -> Reference:
    """A point of a run in the order of the other's units."""
    return reference if matched is None else permuted_reference(reference, run.shapes, matched, workspace)


def _side(run: MeasuredRun, columns: MeasuredColumns, reference: Reference) -> Side:
    [measured] = columns.samples
    return Side(run.rows, measured.towards[reference.spec])

"""The trajectory in the plane of its first two principal components: which iterates, their products, the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trajcheck.metrics.principal_components import principal_plane
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Rows
from trajcheck.stream.gram_pass import evenly_spaced, gather_gram


@dataclass(frozen=True)
class Plane:
    """`table` is trajectory.csv, `facts` stand in summary.json: the share of variance that each component explains,
    and where the references lie."""

    table: CsvTable
    facts: dict[str, Any]


def find_plane(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    count: int,
    progress: Callable[[float], object] = lambda points: None,
) -> Plane:
    """The plane of at most `count` evenly spaced iterates, and every reference in it. Raises NotFiniteError."""
    chosen = evenly_spaced(rows, count)
    found = principal_plane(*gather_gram(trajectory, chosen, references, progress))
    table = CsvTable("trajectory", trajectory.steps)
    first, second = found.components
    steps = [row.step for row in chosen]
    table.add({"step": steps}, {"component_1": first, "component_2": second, "off_plane": found.off_plane})
    points = {
        reference.spec: {"component_1": first, "component_2": second, "off_plane": apart}
        for reference, (first, second, apart) in zip(references, found.points, strict=True)
    }
    return Plane(table, {"iterates": len(chosen), "explained": list(found.explained), "references": points})

"""schedule.csv: the last-iterate bound along a run, a row a step, reference and sample."""

from __future__ import annotations

from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.runs.trajectory import Trajectory
from trajcheck.tables.schedule.bound_rows import Schedule


def schedule_table(trajectory: Trajectory, found: Schedule) -> CsvTable:
    """`step` is that of x_T."""
    table = CsvTable("schedule", trajectory.steps)
    for each in found.parts:
        table.add({"step": list(each.steps), "ref": each.ref, "sample": each.sample}, each.columns)
    return table

"""allocation.csv: what each tensor, and each parameter group, made of the loss's change; and the largest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trajcheck.metrics.families import Family
from trajcheck.metrics.quantity import ALLOCATION
from trajcheck.reports.making.csv_table import CsvTable, TablePart
from trajcheck.reports.making.headline import last
from trajcheck.tables.allocation import allocations, parts_of
from trajcheck.tables.layers import numel
from trajcheck.tables.samples import Measured, chosen

#: So many tensors stand in the summary.
LARGEST = 20

#: What the summary has of a tensor or group.
OF_PART = (
    *("allocation_sum", "allocation_sum_se", "allocation_sum_rows_se", "allocation_share", "allocation_share_se"),
    *("raised", "lowered"),
)


def allocation_table(measured: Sequence[Measured], families: Mapping[str, Family], patterns: Sequence[str]) -> CsvTable:
    """A row a step, sample and tensor; those without a tensor hold the sums over a parameter group."""
    source = measured[0].sources[0]
    steps, parts = [row.step for row in source.rows.rows], parts_of(source, patterns)
    table = CsvTable("allocation", source.trajectory.steps)
    for each in measured:
        for part, columns in allocations(each, parts):
            keys = {"step": steps, "sample": each.sample, "tensor": part.tensor, "group": part.group}
            table.add({**keys, "numel": numel(source, part.tensors)}, chosen(ALLOCATION, columns, families))
    return table


def allocation_summary(table: CsvTable) -> dict[str, Any]:
    """By sample the tensors with the largest sums, and the parameter groups, each with its values on the last row."""
    found: dict[str, Any] = {}
    for part in table.parts:
        of_sample = found.setdefault(str(part.keys["sample"]), {"tensors": {}, "groups": {}})
        name = str(part.keys["tensor"])
        of_sample["tensors" if name else "groups"][name or str(part.keys["group"])] = _of(part)
    for of_sample in found.values():
        tensors = of_sample["tensors"]
        order = sorted(tensors, key=lambda name: -abs(tensors[name]["allocation_sum"] or 0.0))
        of_sample["tensors"] = {name: tensors[name] for name in order[:LARGEST]}
        of_sample["others"] = len(order[LARGEST:])
    return found


def _of(part: TablePart) -> dict[str, float | None]:
    return {name: last(part.columns[name]) for name in OF_PART if name in part.columns}

"""layers.csv: the tables for single tensors, or for groups of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trajcheck.metrics.families import Family
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.tables.layers import groups_of, layer_source, not_empty, numel
from trajcheck.tables.samples import Measured, chosen


def layers_table(measured: Sequence[Measured], families: Mapping[str, Family], patterns: Sequence[str]) -> CsvTable:
    """Rows with an empty `ref` hold columns of steps.csv, those with a reference columns of references.csv."""
    source = measured[0].sources[0]
    trajectory = source.trajectory
    steps = [row.step for row in source.rows.rows]
    table = CsvTable("layers", trajectory.steps)
    groups = groups_of(not_empty(source), patterns)
    layers = {
        (each.sample, label): replace(
            each, sources=tuple(layer_source(source, tensors) for source in each.sources), of_tensor=True
        )
        for label, tensors in groups.items()
        for each in measured
    }
    for spec in ("", *(reference.spec for reference in measured[0].references)):
        for each in measured:
            for label, tensors in groups.items():
                layer = layers[each.sample, label]
                of, columns = (REFERENCES, layer.towards[spec]) if spec else (STEPS, layer.own)
                tensor = {"tensor": label, "numel": numel(source, tensors)}
                keys = {"step": steps, "ref": spec, "sample": each.sample, **tensor}
                table.add(keys, chosen(of, columns, families, "grad_norm"))
    return table

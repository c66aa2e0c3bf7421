"""layers.csv: the tables for single tensors, or for groups of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trajcheck.metrics.columns import Column
from trajcheck.metrics.families import Family
from trajcheck.reports.making.csv_table import Table
from trajcheck.tables.layers import (
    REFERENCE_COLUMNS,
    STEP_COLUMNS,
    groups_of,
    layer_source,
    not_empty,
    numel,
    with_radial_cos,
)
from trajcheck.tables.samples import SE, Measured


def layers_table(measured: Sequence[Measured], families: Mapping[str, Family], patterns: Sequence[str]) -> Table:
    """Rows with an empty `ref` hold columns of steps.csv, those with a reference columns of references.csv."""
    source = measured[0].sources[0]
    trajectory = source.trajectory
    table = Table("layers", [row.step for row in source.rows.rows], trajectory.steps)
    groups = groups_of(not_empty(source), patterns)
    step_columns, reference_columns = (
        {"grad_norm", "radial_cos"} | {name for family in families.values() for name in getattr(family, of)}
        for of in ("step_columns", "reference_columns")
    )
    layers = {
        (each.sample, label): replace(
            each, sources=tuple(layer_source(source, tensors) for source in each.sources), decorate=with_radial_cos
        )
        for label, tensors in groups.items()
        for each in measured
    }
    for spec in ("", *(reference.spec for reference in measured[0].references)):
        wanted = step_columns & set(STEP_COLUMNS) if not spec else reference_columns & set(REFERENCE_COLUMNS)
        for each in measured:
            for label, tensors in groups.items():
                layer = layers[each.sample, label]
                columns = layer.towards[spec] if spec else layer.own
                keys = {"ref": spec, "sample": each.sample, "tensor": label, "numel": numel(source, tensors)}
                table.add(keys, _chosen(columns, wanted))
    return table


def _chosen(columns: Mapping[str, Column], wanted: set[str]) -> dict[str, Column]:
    first = {name: each for name, each in columns.items() if name.removesuffix(SE) == "radial_cos"}
    return first | {name: each for name, each in columns.items() if name.removesuffix(SE) in wanted}

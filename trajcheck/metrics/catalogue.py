"""Every column of every table, in the order of the contract."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from trajcheck.metrics.quantity import (
    ALLOCATION,
    AVERAGES,
    COMPARE,
    DECLARED,
    FLOW,
    REFERENCES,
    SCHEDULE,
    STEPS,
    Quantity,
)

TABLES = (STEPS, REFERENCES, SCHEDULE, COMPARE, FLOW, ALLOCATION, AVERAGES)

#: The modules that declare columns; a table's stand in this order, and within a module in that of their declarations.
MODULES = (
    *("run", "geometry", "secant", "memory", "progress", "convexity", "above", "window_sums", "smoothness"),
    *("curvature", "noise", "tail"),
    *("weight_decay", "without_own_term", "choice_of_rows", "control_variate", "replay_errors", "resolution"),
    *(f"other_tables.{name}" for name in ("schedule", "comparison", "flow", "allocation", "averages")),
)


@cache
def quantities(table: str) -> dict[str, Quantity]:
    """The columns of one table by name."""
    found: dict[str, Quantity] = {}
    for name in MODULES:
        module = import_module(f"trajcheck.metrics.formulas.{name}").__name__
        for (of, column), each in DECLARED.get(module, {}).items():
            if of == table:
                assert column not in found, f"{table} declares {column} twice"
                found[column] = each
    return found

"""The families of --metrics: which columns of steps.csv and references.csv each gives."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trajcheck.errors import UsageError
from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.quantity import ALLOCATION, FAMILY_NAMES, REFERENCES, STEPS

#: The tables whose columns are chosen by family.
CHOSEN = (STEPS, REFERENCES, ALLOCATION)


@dataclass(frozen=True)
class Family:
    """Columns that are asked for together. What they need is told by their declarations (tables/needed.py)."""

    step_columns: tuple[str, ...] = ()
    reference_columns: tuple[str, ...] = ()
    allocation_columns: tuple[str, ...] = ()

    def of(self, table: str) -> tuple[str, ...]:
        """Its columns of one table."""
        every = (self.step_columns, self.reference_columns, self.allocation_columns)
        return dict(zip(CHOSEN, every, strict=True))[table]


FAMILIES = {
    family: Family(
        *(tuple(name for name, each in quantities(table).items() if family in each.families) for table in CHOSEN)
    )
    for family in FAMILY_NAMES
}


def choose_families(names: Collection[str]) -> dict[str, Family]:
    """The families by name; all of them when none is named. Raises UsageError."""
    for name in names:
        if name not in FAMILIES:
            raise UsageError(f"--metrics {name!r}: expected some of {', '.join(FAMILIES)}.")
    return {name: family for name, family in FAMILIES.items() if not names or name in names}

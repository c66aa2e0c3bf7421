"""Which quantity of a table is known to be free of the step's own term, so that pure noise gives 0 for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trajcheck.metrics.columns import Column, column
from trajcheck.runs.independence.dependence import Dependence
from trajcheck.runs.optimizer_memory import PROBE, Skip

#: Columns of references.csv as they are, and without the step's own term.
COSINE, SUM = ("cos", "cos_skip"), ("convexity_num", "convexity_num_skip")


def free_column(
    names: tuple[str, str],
    columns: Mapping[str, Column],
    steps: Sequence[int],
    sample: str,
    depends: Dependence,
    skip: Skip,
) -> tuple[str, Column, str]:
    """The name of one of two columns, its values on the rows on which it is free of the step's own term, and why there
    are none, '' where the columns' own reasons say so.

    On the step's own sample it is the second towards a later iterate, if x_s is known to lie as far ahead as the
    optimizer carries a gradient on; else the first, if x* holds the gradient of no row. On probe batches and the whole
    data set it is the first. On the previous sample there is none: x_t was made from it.
    """
    nothing = column([None] * len(steps), "")
    plain, without = names
    if plain not in columns or sample == "previous":
        return plain, nothing, ""
    found, skipped = columns[plain], columns.get(without, nothing)
    if sample != "own" or not found.defined.any():
        return plain, found, ""
    if skipped.defined.any() and skip.enough and not skip.decays:
        return without, skipped, ""
    if depends.free is not None:
        return plain, found if depends.free <= steps[0] else nothing, skip.missing
    return plain, nothing, f"x* may depend on the batches of the run's own steps: {depends.found}. {PROBE}"

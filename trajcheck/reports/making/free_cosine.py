"""Which cosine of a table is known to be free of the step's own term, so that pure noise gives 0 for its mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trajcheck.metrics.columns import Column, column
from trajcheck.runs.independence.dependence import Dependence
from trajcheck.runs.optimizer_memory import PROBE, Skip


def free_cosine(
    columns: Mapping[str, Column], steps: Sequence[int], sample: str, depends: Dependence, skip: Skip
) -> tuple[str, Column, str]:
    """The name of a column of references.csv, its values on the rows on which it is free of the step's own term, and
    why there are none, '' where the columns' own reasons say so.

    On the step's own sample it is cos_skip towards a later iterate, if x_s is known to lie as far ahead as the
    optimizer carries a gradient on; else cos, if x* holds the gradient of no row. On probe
    batches and the whole data set it is cos. On the previous sample there is none: x_t was made from it.
    """
    nothing = column([None] * len(steps), "")
    if "cos" not in columns or sample == "previous":
        return "cos", nothing, ""
    cos, skipped = columns["cos"], columns.get("cos_skip", nothing)
    if sample != "own" or not cos.defined.any():
        return "cos", cos, ""
    if skipped.defined.any() and skip.enough and not skip.decays:
        return "cos_skip", skipped, ""
    if depends.free is not None:
        return "cos", cos if depends.free <= steps[0] else nothing, skip.missing
    return "cos", nothing, f"x* may depend on the batches of the run's own steps: {depends.found}. {PROBE}"

"""What storing iterates in half precision makes of distances between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trajcheck.files.extents import EPSILON, Extent
from trajcheck.metrics.columns import Column

#: Of numbers whose mantissas are spread evenly over their octave: the root mean square of what rounding changes in the
#: difference of two, over the epsilon of their dtype and their own size. A distance of NEAR such sizes has 3% of it.
STORED, NEAR = 0.3, 4.0


def near_rounding_warning(
    parameters: Iterable[Extent], own: Mapping[str, Column], towards: Mapping[str, Mapping[str, Column]]
) -> str | None:
    """How many distances between iterates of half precision are near what storing alone makes of equal ones."""
    dtypes = {extent.dtype for extent in parameters if extent.numel}
    size = own.get("param_norm")
    if size is None or not dtypes or not dtypes <= {"BF16", "F16"}:
        return None
    limits = NEAR * STORED * max(EPSILON[dtype] for dtype in dtypes) * size.values
    near = []
    columns = {
        "step_norm": own.get("step_norm"),
        **{f"ref_dist to {s}": each.get("ref_dist") for s, each in towards.items()},
    }
    for name, column in columns.items():
        if column is not None:
            with np.errstate(invalid="ignore"):
                count = int((column.defined & (column.values > 0) & (column.values < limits)).sum())
            near += [f"{name} at {count} of {int((column.defined & (column.values > 0)).sum())} steps"] if count else []
    if not near:
        return None
    return (
        f"iterates are stored in {', '.join(sorted(dtypes))}, and distances come near what rounding alone makes, some "
        f"{STORED * max(EPSILON[dtype] for dtype in dtypes):.2g} of |x_t|: less than {NEAR:g} times that are "
        f"{'; '.join(near)}. If the training kept wider weights, such a distance is not known"
    )

"""Which row of a pass a NaN or Inf belongs to."""

from __future__ import annotations

import math

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.runs.divergence import raise_not_finite
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row
from trajcheck.scalars.values import RowScalars


def _check_finite(trajectory: Trajectory, row: Row, scalars: RowScalars) -> None:
    values = [getattr(scalars.own, name) for name in STEP_PRODUCTS]
    for towards in scalars.references:
        values += [getattr(towards, name) for name in REFERENCE_PRODUCTS]
    if all(value is None or math.isfinite(value) for value in values):
        return
    with ExtentReader() as reader:
        raise_not_finite(reader, trajectory, row.near)

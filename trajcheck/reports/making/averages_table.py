"""averages.csv: the losses at averages of recorded iterates; and what the summary says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.horizon import chosen
from trajcheck.metrics.shares import shares
from trajcheck.reports.making.csv_table import CsvTable
from trajcheck.reports.making.headline import last
from trajcheck.tables.averages import Averaged

#: What the summary has of the last row of an average.
AT_END = ("loss", "loss_avg", "valley_height", "valley_height_se", "valley_height_resolution")


def averages_table(averages: Sequence[Averaged]) -> CsvTable:
    """A row a step, average and sample."""
    table = CsvTable("averages", averages[0].steps)
    for each in averages:
        steps = [row.step for row in each.rows.rows]
        table.add({"step": steps, "average": each.average.spec, "sample": each.sample}, each.columns)
    return table


def averages_summary(averages: Sequence[Averaged]) -> dict[str, Any]:
    """By sample: of each average the values of its last row; the shares of steps on which its loss is `better` than the
    iterate's, `worse`, or not certainly either; those on which it is below the iterates' mean loss, as where the loss
    is `convex`; and which average is best at the end and along the run. {} where none was asked for."""
    found: dict[str, Any] = {}
    for each in averages:
        of_sample = found.setdefault(each.sample, {"averages": {}})
        height, steps = each.columns["valley_height"], np.array([row.step for row in each.rows.rows])
        below = _judged(each, "valley_height", {"better": "not_convex", "worse": "convex"})
        of_sample["averages"][each.average.spec] = {
            "step": int(steps[height.defined][-1]) if height.defined.any() else None,
            **{name: last(each.columns[name].along(height)) for name in AT_END if name in each.columns},
            "shares": below,
            "jensen": _judged(each, "jensen_gap", {"convex": "convex", "not_convex": "not_convex"}),
        }
    for sample, of_sample in found.items():
        mine = [each for each in averages if each.sample == sample]
        every = {each.average.spec: [columns["valley_height"] for columns in each.each] for each in mine}
        heights = {name: each for name, each in every.items() if each[0].defined.any()}
        weights = mine[0].rows.point_weights(sample)
        for name, at_end in (("best_at_end", True), ("best_along", False)):
            of_sample[name] = chosen(heights, weights, at_end=at_end)
    return {"averages": found} if found else {}


def no_average(averages: Sequence[Averaged]) -> list[str]:
    """Which averages have no value."""
    return [
        f"--average {each.average.spec}: no row has one on sample {each.sample}; undefined.csv says why"
        for each in averages
        if not each.columns["valley_height"].defined.any()
    ]


def _judged(each: Averaged, name: str, called: dict[str, str]) -> dict[str, float] | None:
    """The shares of rows on which a column is certainly of either sign; on probe batches it is not within its standard
    error. None without a row."""
    limit, error = each.columns[f"{name}_resolution"], each.columns.get(f"{name}_se")
    if error is not None:
        limit = Column(np.fmax(limit.values, error.values), limit.reasons)
    found = shares(each.columns[name], limit, each.rows.point_weights(each.sample))
    if found is None:
        return None
    return {**{word: found.of[kind] for word, kind in called.items()}, "undetermined": found.of["undetermined"]}

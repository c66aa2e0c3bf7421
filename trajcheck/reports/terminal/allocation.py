"""Who lowered the loss, on the terminal: the largest tensors of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.reports.terminal.layout import aligned, number, percent

#: The samples, the one that tells most first, and so many of its tensors.
ORDER, MOST = ("probe", "full", "own", "previous"), 5


def allocation_lines(found: Mapping[str, Any]) -> list[str]:
    """`found` is the summary's `allocation`; of samples the first of ORDER that there is."""
    sample = next((name for name in ORDER if name in found), None)
    if sample is None:
        return []
    of_sample = found[sample]
    rows = [("tensor", "sum", "+-", "share", "raised", "lowered")]
    for name, each in list(of_sample["tensors"].items())[:MOST]:
        error = each.get("allocation_sum_se") or each.get("allocation_sum_rows_se")
        shares = (percent(each[key]) for key in ("allocation_share", "raised", "lowered"))
        rows.append((name, number(each["allocation_sum"]), number(error), *shares))
    more = len(of_sample["tensors"]) - MOST + of_sample["others"]
    return [
        "",
        f"who lowered the loss, on sample {sample}",
        *aligned(rows),
        *([f"and {more} more tensors, in allocation.csv"] if more > 0 else []),
    ]

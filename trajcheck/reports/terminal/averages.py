"""Losses at averages along the path, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.reports.terminal.layout import aligned, number, percent, wrapped


def averages_lines(found: Mapping[str, Any]) -> list[str]:
    """`found` is the summary's `averages`."""
    lines: list[str] = []
    for sample, of_sample in found.items():
        rows = [("average", "f(x)-f(avg)", "+-", "step", "better", "worse", "?")]
        for name, each in of_sample["averages"].items():
            shares = each["shares"] or {}
            rows.append(
                (
                    name,
                    number(each["valley_height"]),
                    number(each.get("valley_height_se")),
                    "-" if each["step"] is None else str(each["step"]),
                    *(percent(shares.get(kind)) for kind in ("better", "worse", "undetermined")),
                )
            )
        lines += ["", f"averages of iterates, on sample {sample}: the last row, and shares of steps", *aligned(rows)]
        lines += wrapped(_best(of_sample["best_at_end"], len(rows) - 1), 9)
    return lines


def _best(best: Mapping[str, Any] | str, averages: int) -> str:
    if isinstance(best, str):
        return "" if averages < 2 else f"best:    none chosen: {best}"
    error = best["valley_height_se"]
    return (
        f"best:    {best['average']}, chosen on half of the batches: on the other {best['batches']} "
        f"{number(best['valley_height'])}" + ("" if error is None else f" +- {number(error)}")
    )

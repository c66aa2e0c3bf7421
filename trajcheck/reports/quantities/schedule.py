"""The last-iterate bound of a report as a table and sentences, alike on the terminal and on the page.

A sentence claims no more than was measured: a bound that holds does not make f convex, and where it does not, f is not
convex only if the steps are the theorem's and every gradient is of all of f.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from trajcheck.reports.terminal.layout import number

HEADS = ("towards, sample", "T", "distance", "gradients", "last", "bound", "gap", "held", "factor")

#: What the columns of the table mean.
LEGEND = {
    "bound": "of f(x_T) - f(x*), for subgradient steps on a convex f: the sum of distance, D^2 / (2 S), gradients, "
    "sum eta^2 |g|^2 / (2 S), and last, what the last iterate takes beyond an average; S is the sum of the rates",
    "gap": "f(x_T) - f(x*) on the sample, x_T where the last gradient was taken at a rate above 0",
    "factor": "on all rates, at which the bound would be least: sqrt(distance / (gradients + last))",
}
_SAMPLES = {
    "own": "the batch of step {step}",
    "probe": "the probe batches",
    "full": "the whole data set",
}


def last_rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of schedule.csv the last row towards each reference on each sample, None where a cell is empty."""
    for _, part in frame.groupby(["ref", "sample"], sort=False):
        row = part.iloc[-1]
        yield {str(name): None if pd.isna(value) else value for name, value in row.items()}


def cells(row: Mapping[str, Any], digits: int = 3) -> tuple[str, ...]:
    """As HEADS."""
    names = ("distance_term", "gradient_term", "last_term", "bound", "loss_gap")
    held = "-" if row.get("held") is None else "yes" if row["held"] else "no"
    values = (number(row.get(name), digits) for name in names)
    factor = number(row.get("rate_factor"), digits)
    return (f"{row['ref']}, {row['sample']}", f"{row['step']:.0f}", *values, held, factor)


def sentences(frame: pd.DataFrame, summary: Mapping[str, Any]) -> Iterator[str]:
    """One towards each reference on each sample."""
    facts = summary["schedule"]
    for row in last_rows(frame):
        why = facts["not_theorem"].get(row["ref"], {}).get(row["sample"], [])
        yield f"Towards {row['ref']}, {_sample(row, facts)}: {_said(row, why, facts)}"


def _sample(row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if row["sample"] == "own" and facts["one_function"]:
        return "on the one batch of all steps"
    return "on " + _SAMPLES.get(row["sample"], row["sample"]).format(step=f"{row['step']:.0f}")


def _said(row: Mapping[str, Any], why: list[str], facts: Mapping[str, Any]) -> str:
    bound, gap, held = row.get("bound"), row.get("loss_gap"), row.get("held")
    label = f"; not the theorem's, which need not hold here: {'; '.join(why)}" if why else ""
    if bound is None:
        return f"no bound at step {row['step']:.0f}: {facts['why'] or 'undefined.csv says why'}{label}."
    bounded = f"the bound at step {row['step']:.0f} is {number(bound)}{_best(row)}"
    if gap is None:
        return f"{bounded}; the gap is not measured{label}."
    measured = f"{bounded}; the gap is {number(gap)}{_error(row)}"
    if held is None:
        one = ", which is of one batch and has no error" if row["sample"] == "own" and not facts["one_function"] else ""
        return f"{measured}{one}: whether the bound holds is undetermined{label}."
    if held:
        return f"{measured}: the bound holds, as of convex f it does, and of others it may{label}."
    return f"{measured}: the bound is broken{_broken(why, facts)}{label}."


def _best(row: Mapping[str, Any]) -> str:
    """Of other rates, where there is a distance to go."""
    factor, least = row.get("rate_factor"), row.get("best_bound")
    if not factor or least is None:
        return ""
    return f" (least, {number(least)}, at {number(factor)} times the rates)"


def _error(row: Mapping[str, Any]) -> str:
    error = row.get("loss_gap_se")
    return "" if error is None else f" ± {number(error, 2)} (standard error over batches)"


def _broken(why: list[str], facts: Mapping[str, Any]) -> str:
    if why:
        return ""
    if facts["one_function"]:
        return ": no convex f has such steps"
    return ", in this training; the theorem is of means over trainings with other draws of the batches"

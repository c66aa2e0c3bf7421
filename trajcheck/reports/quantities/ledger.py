"""The ledger of a report as tables and sentences, alike on the terminal and on the page.

A sentence says what was measured and no more: on how many rows of this path, on which sample, how much of it is
undetermined, what noise alone would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from trajcheck.metrics.assumptions.assumption import Assumption
from trajcheck.metrics.assumptions.catalogue import assumptions
from trajcheck.metrics.assumptions.fitted import EXPLAINED
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.reports.quantities.catalogue import PREVIOUS
from trajcheck.reports.terminal.layout import number

SAMPLES = {
    "own": "on own samples",
    "previous": "on the previous sample, of which x_t was made",
    "probe": "on the probe batches",
    "full": "on the whole data set",
}
HEADS = ("assumption, constant", "extreme", "5%", "median", "95%", "holds", "fails", "open", "noise", "rows")

#: What the columns of the tables mean.
LEGEND = {
    "extreme": "the constant: the smallest or largest value of its rows, or what was fitted; 5%, median, 95%: "
    "quantiles of the rows, by the steps that they stand for; of a fit the median and the ends of its 90% interval",
    "holds": "share of steps on which the inequality holds by more than its resolution; fails: on which it does not; "
    "open: undetermined",
    "noise": "the median that noise alone would give, where that is known; assumptions.csv and undefined.csv have all",
}
OFF_THE_PATH = "says nothing of points off the path"


@dataclass(frozen=True)
class Part:
    """The rows towards one point, on one sample: `title` names both; `rows` as HEADS, `said` a sentence each."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    said: dict[str, str]


def parts(frame: pd.DataFrame, digits: int = 3) -> Iterator[Part]:
    """Of assumptions.csv, in its order of references and samples."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for each in records(frame):
        found.setdefault((str(each["ref"]), str(each["sample"])), []).append(each)
    for (ref, sample), rows in found.items():
        where = "between consecutive iterates" if ref == PREVIOUS else f"towards {ref}"
        yield Part(
            f"{where}, {SAMPLES.get(sample, sample)}",
            tuple(_cells(each, digits) for each in rows),
            dict(_sentences(rows)),
        )


def _sentences(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """One a row; of constants that were fitted together one for all."""
    for name, group in groupby(rows, key=lambda row: str(row["assumption"])):
        together = list(group)
        if _declared(together[0]).extreme:
            yield from ((f"{name}, {each['parameter']}", sentence(each)) for each in together)
        else:
            yield name, fitted_sentence(together)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of assumptions.csv; None where a cell is empty."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): cell for name, cell in row.items()} for row in rows]


def _cells(row: Mapping[str, Any], digits: int) -> tuple[str, ...]:
    values = (number(row[name], digits) for name in ("constant", "quantile_5", "median", "quantile_95"))
    shares = (percent(row[name]) for name in ("satisfied", "violated", "undetermined"))
    rows = "-" if row["rows"] is None else f"{row['rows']:.0f}"
    return (f"{row['assumption']}, {row['parameter']}", *values, *shares, number(row["noise"], digits), rows)


def percent(share: float | None) -> str:
    """A share in percent; one that is not 0 or 1 is not shown as it."""
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}%"
    text = f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.3f}".rstrip("0")
    return f"{text}%" if float(text) < 100 else ">99.9%"


def sentence(row: Mapping[str, Any]) -> str:
    """What a row of assumptions.csv says, in a sentence."""
    one = _declared(row)
    said = [_verdict(row), _constant(row, one), _noise(row)]
    return f"{one.title}: {'; '.join(part for part in said if part)}"


def fitted_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of one fit say."""
    one, where = _declared(rows[0]), SAMPLES.get(str(rows[0]["sample"]), str(rows[0]["sample"]))
    found = [row for row in rows if row["constant"] is not None]
    if not found:
        return f"{one.title}: no fit, {where}: undefined.csv says why"
    said = [f"fitted to {rows[0]['rows']:.0f} rows of this path, {where}"]
    for row in found:
        low, high = row["quantile_5"], row["quantile_95"]
        between = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
        said.append(f"{one.constants.get(str(row['parameter']), '')} is {number(row['constant'])}{between}")
        if row["parameter"] == EXPLAINED and row["noise"] is not None:
            said[-1] += f", by chance up to {number(row['noise'])}"
    return f"{one.title}: {'; '.join([*said, _ahead(rows[0]), OFF_THE_PATH])}"


def _ahead(row: Mapping[str, Any]) -> str:
    """The verdict on the second half of the steps."""
    if row["satisfied"] is None:
        return "the first half of the steps has no fit by which the second could be judged"
    open_ = f", undetermined on {percent(row['undetermined'])}" if row["undetermined"] else ""
    worst = "" if row["worst_step"] is None else f", worst at step {row['worst_step']:.0f}"
    return (
        f"with the constants of the first half of the steps satisfied on {percent(row['satisfied'])}, violated on "
        f"{percent(row['violated'])}{open_} of the second half{worst}"
    )


def _declared(row: Mapping[str, Any]) -> Assumption:
    found = assumptions()
    name = str(row["assumption"])
    return found.get((STEPS if row["ref"] == PREVIOUS else REFERENCES, name)) or found[REFERENCES, name]


def _verdict(row: Mapping[str, Any]) -> str:
    where = SAMPLES.get(str(row["sample"]), str(row["sample"]))
    satisfied, violated, undetermined = (row[name] for name in ("satisfied", "violated", "undetermined"))
    if satisfied is None:
        return f"no verdict, {where}"
    rows = f"{row['rows']:.0f}"
    if satisfied == 1:
        return f"no violation on {rows} of {rows} rows along this path, {where}; {OFF_THE_PATH}"
    of = f"of the steps that its {rows} rows stand for, {where}"
    if undetermined == 1:
        return f"undetermined on all {of}"
    open_ = f", undetermined on {percent(undetermined)}" if undetermined else ""
    if not violated:
        return f"no violation is resolved: satisfied on {percent(satisfied)}{open_} {of}; {OFF_THE_PATH}"
    worst = "" if row["worst"] is None else f", by {number(row['worst'], 2)} times its resolution"
    step = "" if row["worst_step"] is None else f", worst at step {row['worst_step']:.0f}{worst}"
    return f"violated on {percent(violated)}, satisfied on {percent(satisfied)}{open_} {of}{step}"


def _constant(row: Mapping[str, Any], one: Assumption) -> str:
    value, words = row["constant"], one.constants.get(str(row["parameter"]), "")
    if value is None:
        return ""
    low, middle, high = (row[name] for name in ("quantile_5", "median", "quantile_95"))
    if low is None or high is None:
        return f"{words} is {number(value)}"
    half = "" if middle is None else f", half of them at most {number(middle)}"
    spread = f"from {number(low)} to {number(high)}"
    return f"{words} is {number(value)}, an extreme of rows; 90% of the steps lie {spread}{half}"


def _noise(row: Mapping[str, Any]) -> str:
    return "" if row["noise"] is None else f"noise alone would give about {number(row['noise'])}"

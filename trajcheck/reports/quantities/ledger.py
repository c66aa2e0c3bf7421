"""The ledger of a report as tables and sentences, alike on the terminal and on the page.

A sentence says what was measured and no more: on how many rows of this path, on which sample, how much of it is
undetermined, what noise alone would give; where there is no verdict or no constant, why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
HEADS = ("assumption", "constant", "5%", "median", "95%", "holds", "fails", "open", "noise", "rows")

#: What the columns of the tables mean.
LEGEND = {
    "constant": "the smallest or largest value of the rows, or what was fitted; 5%, median, 95%: quantiles of the "
    "rows, by the steps that they stand for; of a fit the median and the ends of its 90% interval",
    "holds": "share of steps on which the inequality holds by more than its resolution; fails: on which it is violated "
    "by more; open: undetermined; of a fit, the second half of the steps with the constants of the first",
    "noise": "the median that noise alone would give, where that is known",
}
OFF_THE_PATH = "this says nothing of points off the path"
#: Constants of rows, and what one is in words.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ledger:
    """assumptions.csv, and undefined.csv with the reasons for its empty cells."""

    frame: pd.DataFrame
    undefined: pd.DataFrame

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The rows of assumptions.csv; None where a cell is empty."""
        rows = self.frame.astype(object).where(self.frame.notna(), None).to_dict("records")
        return [{str(name): cell for name, cell in row.items()} for row in rows]

    @cached_property
    def parts(self) -> list[Part]:
        """By references and samples, in its order."""
        found: dict[tuple[str, str], list[Row]] = {}
        for each in self.records:
            found.setdefault((str(each["ref"]), str(each["sample"])), []).append(each)
        return [Part(self, ref, sample, tuple(rows)) for (ref, sample), rows in found.items()]

    @cached_property
    def formulas(self) -> dict[str, str]:
        """What each assumption says."""
        names = dict.fromkeys((str(row["assumption"]), str(row["formula"])) for row in self.records)
        return {name: formula for name, formula in names}

    def why(self, row: Row, column: str) -> str:
        """Why a cell is empty, or ''."""
        name = f"{row['assumption']} {row['parameter']}"
        for reason in self._reasons.get((column, str(row["ref"]), str(row["sample"])), ()):
            before, _, names = reason.removesuffix(")").rpartition(" (")
            if reason.endswith(")") and name in names.split(", "):
                return before
        others = self._reasons.get((column, str(row["ref"]), str(row["sample"])), [])
        return others[0] if len(others) == 1 else ""

    @cached_property
    def _reasons(self) -> dict[tuple[str, str, str], list[str]]:
        found: dict[tuple[str, str, str], list[str]] = {}
        for row in self.undefined[self.undefined["table"] == "assumptions"].to_dict("records"):
            found.setdefault((row["column"], str(row["ref"]), str(row["sample"])), []).append(str(row["reason"]))
        return found


@dataclass(frozen=True)
class Part:
    """The rows towards one point, on one sample."""

    ledger: Ledger
    ref: str
    sample: str
    records: tuple[Row, ...]

    @property
    def title(self) -> str:
        where = "between consecutive iterates" if self.ref == PREVIOUS else f"towards {self.ref}"
        return f"{where}, {SAMPLES.get(self.sample, self.sample)}"

    def rows(self, digits: int = 3, *, brief: bool = False) -> list[tuple[str, ...]]:
        """As HEADS. `brief`: a constant that was fitted stands under its own name alone, L0, and not as l0_l1 L0."""
        return [_cells(row, digits, brief) for row in self.records]

    @property
    def said(self) -> list[str]:
        """A sentence a row; of constants that were fitted together one for all."""
        found: list[str] = []
        for _, group in groupby(self.records, key=lambda row: str(row["assumption"])):
            rows = list(group)
            fit = not declared(rows[0]).extreme
            found += [fitted_sentence(rows, self.ledger)] if fit else [sentence(row, self.ledger) for row in rows]
        return found


def _cells(row: Row, digits: int, brief: bool) -> tuple[str, ...]:
    values = (number(row[name], digits) for name in ("constant", "quantile_5", "median", "quantile_95"))
    shares = (percent(row[name]) for name in ("satisfied", "violated", "undetermined"))
    rows = "-" if row["rows"] is None else f"{row['rows']:.0f}"
    return (_name(row, brief), *values, *shares, number(row["noise"], digits), rows)


def _name(row: Row, brief: bool) -> str:
    """Of a fit, of which several rows have one name, with the constant's, or the constant's alone."""
    if declared(row).extreme:
        return str(row["assumption"])
    return str(row["parameter"]) if brief else f"{row['assumption']} {row['parameter']}"


def percent(share: float | None) -> str:
    """A share in percent; one that is not 0 or 1 is not shown as it."""
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}%"
    text = f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.4g}"
    return f"{text}%" if float(text) < 100 else ">99.9%"


def declared(row: Row) -> Assumption:
    """What a row is of."""
    found, name = assumptions(), str(row["assumption"])
    return found.get((STEPS if row["ref"] == PREVIOUS else REFERENCES, name)) or next(
        each for (_, other), each in found.items() if other == name
    )


def sentence(row: Row, ledger: Ledger) -> str:
    """What a row of assumptions.csv says."""
    one = declared(row)
    constant = _constant(row, one)
    return f"{one.title}: {'; '.join(part for part in (_verdict(row, ledger), constant) if part)}"


def fitted_sentence(rows: Sequence[Row], ledger: Ledger) -> str:
    """What the rows of one fit say."""
    one, where = declared(rows[0]), SAMPLES.get(str(rows[0]["sample"]), str(rows[0]["sample"]))
    found = [row for row in rows if row["constant"] is not None]
    if not found:
        why = ledger.why(rows[0], "constant")
        return f"{one.title}: no fit {where}{f': {why}' if why else ''}"
    said = [f"fitted to {rows[0]['rows']:.0f} rows of this path, {where}"]
    for row in found:
        low, high = row["quantile_5"], row["quantile_95"]
        between = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
        said.append(f"{one.constants.get(str(row['parameter']), '')} is {number(row['constant'])}{between}")
        if row["parameter"] == EXPLAINED and row["noise"] is not None:
            said[-1] += f", by chance up to {number(row['noise'])}"
    return f"{one.title}: {'; '.join([*said, _ahead(rows[0]), OFF_THE_PATH])}"


def _ahead(row: Row) -> str:
    """The verdict on the second half of the steps."""
    if row["satisfied"] is None:
        return "the first half of the steps has no fit by which the second could be judged"
    open_ = f", undetermined on {percent(row['undetermined'])}" if row["undetermined"] else ""
    worst = "" if row["worst_step"] is None else f", worst at step {row['worst_step']:.0f}"
    return (
        f"with the constants of the first half of the steps satisfied on {percent(row['satisfied'])}, violated on "
        f"{percent(row['violated'])}{open_} of the second half{worst}"
    )


def _verdict(row: Row, ledger: Ledger) -> str:
    where = SAMPLES.get(str(row["sample"]), str(row["sample"]))
    satisfied, violated, undetermined = (row[name] for name in ("satisfied", "violated", "undetermined"))
    if satisfied is None:
        why = ledger.why(row, "satisfied")
        return f"no verdict {where}{f': {why}' if why else ''}"
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


def _constant(row: Row, one: Assumption) -> str:
    value, name = row["constant"], row["parameter"]
    if value is None:
        return ""
    low, middle, high = (row[each] for each in ("quantile_5", "median", "quantile_95"))
    noise = "" if row["noise"] is None else f"; noise alone would give about {number(row['noise'])}"
    if None in (low, middle, high):
        return f"{name} = {number(value)} is the {one.extreme} of its rows{noise}"
    tail = f"below {number(low)}" if one.extreme == "smallest" else f"above {number(high)}"
    return (
        f"{name} = {number(value)} is the {one.extreme} of its rows, an extreme; on half of the steps it is at most "
        f"{number(middle)}, on at most 5% {tail}{noise}"
    )


def fitting_digits(part: Part, width: int, most: Sequence[int] = (3, 2)) -> int:
    """How many digits fit into a line with the names whole, two at least."""
    for digits in most:
        cells = [HEADS, *part.rows(digits, brief=True)]
        if sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True)) - 2 <= width:
            break
    return digits

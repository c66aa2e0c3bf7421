"""The rows of one analysis: what its summary and its tables say towards each reference, on each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.uncertainty import weighted_mean
from trajcheck.reports.quantities.catalogue import (
    BOTH,
    PREVIOUS,
    QUANTITIES,
    REFERENCES,
    STEPS,
    quantity_of,
    value_of_error,
)
from trajcheck.reports.reading.report import SavedReport

Value = float | str | None

#: What of a headline is no quantity of the row.
_NOT_SHOWN = ("point", "cosine_sample", "samples")

#: Shares of the run's steps that are called its end.
LAST_QUARTER, LAST_TENTH = 0.75, 0.9


@dataclass
class QuantityRow:
    """`values` by quantity, None where one is empty; `reasons` say why."""

    ref: str
    sample: str
    values: dict[str, Value] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def previous(self) -> bool:
        return self.ref == PREVIOUS


class Rows:
    """Of one table, those of one reference and sample. `progress` is t/T of each; `weights` those of the table."""

    def __init__(self, report: SavedReport, ref: str, sample: str) -> None:
        self.report, self.table = report, "steps" if ref == PREVIOUS else "references"
        self.keys = {"sample": sample} if ref == PREVIOUS else {"ref": ref, "sample": sample}
        self.steps = self.report.series(self.table, "step", **self.keys).values
        last = report.summary["run"].get("last_step") or 0
        self.progress = self.steps / last if last else np.zeros(len(self.steps))
        weights = self._values("weight")
        known = np.isfinite(weights)
        self.weights = np.where(known, weights, 0.0) if known.any() else np.ones(len(weights))

    def column(self, name: str) -> Column:
        return column(self._values(name))

    def errors(self, name: str) -> np.ndarray | None:
        """Standard errors of the values over probe batches; None where there are none on this sample."""
        found = self.report.series(self.table, name, **self.keys)
        if found.errors is None or not np.isfinite(found.errors).any():
            return None
        return self._spread(found.steps, found.errors)

    def _values(self, name: str) -> np.ndarray:
        found = self.report.series(self.table, name, **self.keys)
        return self._spread(found.steps, found.values)

    def _spread(self, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values on some of the rows as a column of all, NaN on the others."""
        found = np.full(len(self.steps), np.nan)
        found[np.searchsorted(self.steps, steps)] = values
        return found

    def last(self, name: str) -> float | None:
        """The last value that is defined."""
        return self._end(name, -1)

    def first(self, name: str) -> float | None:
        return self._end(name, 0)

    def _end(self, name: str, place: int) -> float | None:
        found = self.column(name)
        return float(found.values[found.defined][place]) if found.defined.any() else None

    def mean(
        self, found: Column, errors: np.ndarray | None = None, after: float = -1.0, until: float = 2.0
    ) -> tuple[float | None, float | None]:
        """The mean over the rows with after <= t/T < until, and its standard error: by batch means along the path or,
        of means over probe batches, the mean of their errors, which it does not exceed."""
        here = (self.progress >= after) & (self.progress < until)
        part = weighted_mean(found.except_where(~here, "elsewhere"), self.weights)
        if part is None:
            return None, None
        if errors is None:
            return part
        with_error = here & found.defined & np.isfinite(errors) & (self.weights > 0)
        if not with_error.any():
            return part[0], None
        return part[0], float(np.average(errors[with_error], weights=self.weights[with_error]))


def quantity_rows(report: SavedReport) -> list[QuantityRow]:
    """A row for every reference and sample of an analysis, x_(t-1) last."""
    head = report.summary["headline"]
    samples = head.get("samples") or {head["sample"]: head}
    rows = []
    for ref in (*head["references"], PREVIOUS):
        for sample, each in samples.items():
            said = each["previous"] if ref == PREVIOUS else each["references"][ref]
            row = QuantityRow(ref, sample)
            _take_headline(row, said)
            _take_tables(row, Rows(report, ref, sample))
            _explain(row, report)
            rows.append(row)
    return rows


def applies(name: str, ref: str) -> bool:
    """Whether a quantity makes sense towards a reference, or the previous iterate; an error as its value."""
    towards = quantity_of(value_of_error(name) or name).towards
    return towards == BOTH or towards == (STEPS if ref == PREVIOUS else REFERENCES)


def _take_headline(row: QuantityRow, said: Mapping[str, Any]) -> None:
    """Everything plain that a headline says, under its own name; shares and reasons by theirs."""
    for name, value in said.items():
        if name == "shares":
            row.values |= {share: (value or {}).get(share) for share in ("convex", "not_convex", "undetermined")}
            row.values |= {share: each for share, each in (value or {}).items() if _plain(each)}
        elif name == "shares_error":
            row.values |= {f"{share}_error": each for share, each in (value or {}).items() if _plain(each)}
        elif name == "convexity_missing":
            if value:
                row.reasons |= {f"convexity_{part}": str(value) for part in ("ratio", "num", "den", "of")}
        elif name == "reasons" and isinstance(value, Mapping):
            row.reasons |= {str(of): str(why) for of, why in value.items() if why}
        elif name.endswith("_reason"):
            if value:
                row.reasons[name.removesuffix("_reason")] = str(value)
        elif name not in _NOT_SHOWN and _plain(value) and applies(name, row.ref):
            row.values[name] = value


def _plain(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float, str)) and not isinstance(value, bool))


def _take_tables(row: QuantityRow, rows: Rows) -> None:
    if not len(rows.steps):
        return
    for name, value in _of_both(rows):
        row.values[name] = value
    for name, value in _of_path(rows) if row.previous else _of_reference(row, rows):
        row.values[name] = value


def _of_both(rows: Rows) -> Iterator[tuple[str, Value]]:
    for name in ("avg_smooth", "max_smooth"):
        yield name, rows.last(name)


def _of_reference(row: QuantityRow, rows: Rows) -> Iterator[tuple[str, Value]]:
    kind = str(row.values.get("cosine_of") or "cos_skip")
    for quarter in range(4):
        mean, error = rows.mean(
            rows.column(kind), rows.errors(kind), quarter / 4, (quarter + 1) / 4 if quarter < 3 else 2
        )
        yield f"cosine_q{quarter + 1}", mean
        yield f"cosine_q{quarter + 1}{_kind_of(rows, kind)}", error
    yield "window_num", rows.last("window_num")
    yield "ref_dist", rows.first("ref_dist")


def _kind_of(rows: Rows, name: str) -> str:
    """What ends the name of the error that `Rows.mean` gives with the errors of a column."""
    return "_error" if rows.errors(name) is None else "_se"


def _of_path(rows: Rows) -> Iterator[tuple[str, Value]]:
    yield "smoothness_ratio", rows.last("smoothness_ratio")
    for name in rows.report.tables["steps"].columns:
        if value_of_error(name) is None and name.endswith("_sum"):
            yield name, rows.last(name)
            yield from ((f"{name}{end}", rows.last(f"{name}{end}")) for end in ("_se", "_rows_se"))
    yield from _of_curvature(rows)
    yield "loss_end", (loss := rows.mean(rows.column("loss"), rows.errors("loss"), LAST_TENTH))[0]
    yield f"loss_end{_kind_of(rows, 'loss')}", loss[1]
    length, distance = rows.last("path_length"), rows.last("init_dist")
    yield "path_length", length
    yield "init_dist", distance
    yield "path_ratio", length / distance if length is not None and distance else None


def _of_curvature(rows: Rows) -> Iterator[tuple[str, Value]]:
    sharpness, threshold = rows.column("lambda_max"), rows.column("stability_threshold")
    for name, found in (("lambda_max", sharpness), ("stability_threshold", threshold.along(sharpness))):
        yield name, rows.mean(found, None, LAST_QUARTER)[0]
    quotient = sharpness.over(threshold, "no threshold")
    mean, error = rows.mean(quotient, None, LAST_QUARTER)
    yield "sharpness_ratio", mean
    yield "sharpness_ratio_error", error
    above = Column(np.where(quotient.defined, quotient.values > 1, np.nan), quotient.reasons)
    yield "sharpness_above", rows.mean(above)[0]


# -- why a quantity is empty ------------------------------------------------------------------------------------------


def _explain(row: QuantityRow, report: SavedReport) -> None:
    """A reason for every quantity that makes sense in the row and is empty, and none for others."""
    for name in [name for name, value in row.values.items() if value is None and not applies(name, row.ref)]:
        del row.values[name]
    for name in [name for name in row.values if value_of_error(name) in row.values and row.values[name] is None]:
        del row.values[name]  # that there is no error is not worth a reason
    for name in {*row.values, *(each for each in QUANTITIES if applies(each, row.ref))}:
        if row.values.get(name) is None:
            row.reasons.setdefault(name, why_empty(report, row, quantity_of(name).columns or (name,)))
    row.reasons = {name: why for name, why in row.reasons.items() if row.values.get(name) is None}


def why_empty(report: SavedReport, row: QuantityRow, columns: tuple[str, ...]) -> str:
    """Why columns have no value on the rows of a reference and sample, in the words of undefined.csv: the most common
    reasons, at most two, of those that have none at all or, where all have some, of all."""
    table, keys = ("steps", {}) if row.previous else ("references", {"ref": row.ref})
    columns = tuple(name for name in columns if name in quantities(table)) or columns
    bare = [name for name in columns if not report.series(table, name, sample=row.sample, **keys)]
    found = report.reasons.most_common(bare or columns, {"table": table, "sample": row.sample, **keys})
    return found or f"the report has no {' or '.join(bare or columns)}"

"""What stands in the columns of a table: quantities, KIND:COLUMN of a report's tables, and fields of the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from trajcheck.errors import UsageError
from trajcheck.metrics.catalogue import quantities
from trajcheck.reports.quantities.catalogue import (
    ERRORS,
    PREVIOUS,
    QUANTITIES,
    SHARE,
    WORD,
    RowQuantity,
    in_order,
    quantity_of,
    value_of_error,
)
from trajcheck.reports.quantities.rows import QuantityRow, Rows, applies, why_empty
from trajcheck.reports.reading.report import SavedReport
from trajcheck.runs.user_fields import Plain

#: How a column of steps.csv or references.csv becomes one number.
KINDS = ("mean", "first", "last", "min", "max")

#: The columns where nobody chose any.
DEFAULT = ("cosine", "convexity_ratio", "convex", "not_convex", "undetermined")
DEFAULT_PREVIOUS = ("convexity_ratio", "convex", "not_convex", "undetermined", "avg_smooth", "loss_change_sum")


class Found(NamedTuple):
    """A value with its own standard errors by kind, or a reason why there is none; '' where it makes no sense in the
    row."""

    value: float | str | None
    errors: Mapping[str, float] = {}
    reason: str = ""


@dataclass(frozen=True)
class RunRow:
    """A row of quantities, of which report, and what is known of its run."""

    report: SavedReport
    label: str
    fields: Mapping[str, Plain]
    row: QuantityRow


@dataclass(frozen=True)
class TableColumn:
    """`name` as it was asked for. A `field` is words; a share is shown in percent. `of_error`: the column holds the
    errors of one kind by themselves, as its quantity has several; else `errors` is the kind of those beside its values,
    '' where they are over runs or there are none."""

    name: str
    quantity: RowQuantity | None = None
    kind: str = ""
    of_error: str = ""
    errors: str = ""

    @property
    def heading(self) -> str:
        if self.of_error:
            return f"± {self.of_error}"
        return self.quantity.shown if self.quantity else self.name.removeprefix("user.")

    @property
    def latex(self) -> str | None:
        """With mathematics; None where the heading is anybody's words."""
        if self.of_error:
            return rf"$\pm$ {self.of_error}"
        declared = self.quantity is not None and not self.kind and self.quantity.name in QUANTITIES
        if not declared or self.quantity is None:
            return None
        return self.quantity.latex + (r" [\%]" if self.share else "")

    @property
    def words(self) -> bool:
        return self.quantity is None or self.quantity.kind == WORD

    @property
    def share(self) -> bool:
        return self.quantity is not None and self.quantity.kind == SHARE

    @property
    def error_name(self) -> str:
        """How the errors beside its values are called."""
        return self.name + next((end for end, kind in ERRORS.items() if kind == self.errors), "_se")

    def split(self, kinds: Sequence[str]) -> list[TableColumn]:
        """The column with errors of its only kind beside its values or, of several kinds, without them, and a column
        of each kind."""
        if len(kinds) < 2:
            return [replace(self, errors=kinds[0] if kinds else "")]
        endings = {kind: end for end, kind in ERRORS.items()}
        return [self, *(replace(self, name=self.name + endings[kind], of_error=kind) for kind in kinds)]

    def of(self, each: RunRow) -> Found:
        if self.quantity is None:
            value = each.fields.get(self.name)
            return Found(None, reason="its run has no such field") if value is None else Found(str(value))
        if self.kind:
            return self._of_table(each)
        name, values = self.quantity.name, each.row.values
        value = values.get(name)
        if value is None:
            known = name in values or name in each.row.reasons
            return Found(None, reason=each.row.reasons.get(name, "not in the report") if known else "")
        if isinstance(value, str):
            return Found(value)
        errors = {kind: values.get(f"{name}{end}") for end, kind in ERRORS.items()}
        numbers = {kind: float(error) for kind, error in errors.items() if isinstance(error, (int, float))}
        return Found(float(value), {kind: error for kind, error in numbers.items() if math.isfinite(error)})

    def _of_table(self, each: RunRow) -> Found:
        assert self.quantity is not None
        name = self.quantity.name
        if name not in quantities("steps" if each.row.previous else "references"):
            return Found(None)
        rows = Rows(each.report, each.row.ref, each.row.sample)
        found = rows.column(name)
        if not found.defined.any():
            return Found(None, reason=why_empty(each.report, each.row, (name,)))
        if self.kind == "mean":
            errors = rows.errors(name)
            value, error = rows.mean(found, errors)
            return Found(value, {} if error is None else {"path" if errors is None else "batch": error})
        values = found.values[found.defined]
        place = {"first": 0, "last": -1, "min": int(values.argmin()), "max": int(values.argmax())}[self.kind]
        return Found(float(values[place]))


def choose_columns(names: Sequence[str], rows: Sequence[RunRow]) -> list[TableColumn]:
    """The columns that were asked for, or the usual ones. Raises UsageError for a name that is none."""
    refs = {each.row.ref for each in rows}
    usual = DEFAULT_PREVIOUS if refs == {PREVIOUS} else DEFAULT
    known = {name for each in rows for name in each.row.values if value_of_error(name) is None} | {*QUANTITIES}
    fields = list(dict.fromkeys(name for each in rows for name in each.fields))
    found = []
    for name in names or usual:
        kind, colon, column = name.partition(":")
        if colon and kind in KINDS and column in {**quantities("steps"), **quantities("references")}:
            words = f"{column.replace('_', ' ')}, {kind}"
            found.append(TableColumn(name, RowQuantity(column, "", words, "", "", columns=(column,)), kind))
        elif name in known:
            found.append(TableColumn(name, quantity_of(name)))
        elif name in fields:
            found.append(TableColumn(name))
        else:
            raise UsageError(
                f"--columns {name!r}: is no column; there are {', '.join(in_order(known))}; {', '.join(fields)}; and "
                f"{'|'.join(KINDS)}:COLUMN, as in mean:rsi, of a column of steps.csv or references.csv."
            )
    return found


def applies_somewhere(column: TableColumn, rows: Sequence[RunRow]) -> bool:
    """Whether a column makes sense in any row."""
    return any(column.quantity is None or column.kind or applies(column.name, each.row.ref) for each in rows)

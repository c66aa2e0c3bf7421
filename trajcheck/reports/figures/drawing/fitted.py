"""What figures of fits take from a report: constants of assumptions.csv, and points of two columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trajcheck.metrics.assumptions.fitted import EXPLAINED
from trajcheck.reports.figures.drawing.envelopes import Panel
from trajcheck.reports.quantities.catalogue import PREVIOUS
from trajcheck.reports.quantities.ledger import SAMPLES
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.terminal.layout import number

SMOOTHNESS = r"$|\nabla f(x_t)-\nabla f(x_{t-1})|\,/\,|d_t|$" "\n[loss/length²]"

#: A row of assumptions.csv, NaN where a cell is empty.
Row = Mapping[str, Any]


def fit_of(report: SavedReport, assumption: str, sample: str, ref: str = PREVIOUS) -> dict[str, Row]:
    """The rows of a fit by the names of their constants, those that have one."""
    frame = report.tables["assumptions"]
    rows = frame[(frame["assumption"] == assumption) & (frame["sample"] == sample) & (frame["ref"] == ref)]
    records: list[dict[Any, Any]] = rows.to_dict("records")
    return {str(row["parameter"]): row for row in records if np.isfinite(row["constant"])}


def why_no_fit(report: SavedReport, assumption: str) -> str:
    """Why a fit found no constant, in the words of undefined.csv, where behind a reason stand those that it is of."""
    frame = report.undefined
    reasons = frame[(frame["table"] == "assumptions") & (frame["column"] == "constant")]["reason"]
    parts = [str(reason).rpartition(" (") for reason in reasons]
    of = [words for words, _, names in parts if f"{assumption} " in names]
    return "; ".join(dict.fromkeys(of)) or report.why_empty("constant")


def envelopes(
    report: SavedReport, assumption: str, names: tuple[str, str], column: str, symbol: str, less: float = 0.0
) -> list[Panel]:
    """A panel a sample on which c_0 + c_1 u >= inst_smooth was fitted, u a column of steps.csv less some number:
    `names` of the constants, `symbol` of u."""
    found = []
    for sample in report.samples:
        fit = fit_of(report, assumption, sample)
        if not set(names) <= fit.keys():
            continue
        steps, across, up = _points(report, column, "inst_smooth", sample)
        if not len(steps):
            continue
        rows = [fit[name] for name in names]
        null, (saved, chance) = (rows[0]["noise"], rows[1]["noise"]), explains(fit)
        words = [f"${names[0][0]}_0+{names[1][0]}_1\\,${symbol}", *map(with_ends, names, rows)]
        found.append(
            Panel(
                *(
                    steps,
                    across - less,
                    up,
                    (rows[0]["constant"], rows[1]["constant"]),
                    "\n".join(filter(None, [*words, saved])),
                ),
                *(null if np.isfinite(null).all() else None, chance, SAMPLES.get(sample, sample)),
            )
        )
    return found


def explains(fit: Mapping[str, Row]) -> tuple[str, str]:
    """What a fit explains, and what chance does, in words; '' where it is not known."""
    if EXPLAINED not in fit:
        return "", ""
    found = fit[EXPLAINED]
    chance = f"by chance up to {100 * found['noise']:.2g}%" if np.isfinite(found["noise"]) else ""
    return f"explains {100 * found['constant']:.2g}%", chance


def with_ends(name: str, row: Row) -> str:
    """A constant with its interval."""
    low, high = row["quantile_5"], row["quantile_95"]
    between = f" ({number(low, 2)}–{number(high, 2)})" if np.isfinite([low, high]).all() else ""
    symbol = name if len(name) == 1 else f"{name[0]}_{name[1:]}"
    return f"${symbol}=${number(row['constant'], 3)}{between}"


def _points(report: SavedReport, across: str, up: str, sample: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and values of two columns of steps.csv, on the rows that have both."""
    one, two = (report.series("steps", column, sample=sample) for column in (across, up))
    steps, at_one, at_two = np.intersect1d(one.steps[one.defined], two.steps[two.defined], return_indices=True)
    return steps, one.values[one.defined][at_one], two.values[two.defined][at_two]

"""The rows of assumptions.csv: every assumption of the catalogue on what was measured."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from trajcheck.metrics.assumptions.alpha_beta import alpha_beta_frontier
from trajcheck.metrics.assumptions.assumption import CONTEXT, Assumption, rows_of
from trajcheck.metrics.assumptions.catalogue import assumptions
from trajcheck.metrics.assumptions.entries import Entry
from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.columns import Column
from trajcheck.metrics.families import Family
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.runs.independence.shared_batches import full_batch
from trajcheck.tables.needed import Needed, needed, needed_by
from trajcheck.tables.samples import SE, Measured


class LedgerRow(NamedTuple):
    """One row: `parameter` is the name of its constant, `ref` the reference as it was given, '' towards x_{t-1}."""

    assumption: Assumption
    parameter: str
    ref: str
    sample: str
    entry: Entry


def ledger(measured: Iterable[Measured], families: Iterable[Family]) -> list[LedgerRow]:
    """Of what some families give: an assumption whose columns take more than theirs is not among the rows."""
    have, samples = needed(families), list(measured)
    found = []
    for (table, _), one in assumptions().items():
        if not _within(_needs(one), have):
            continue
        for each in samples:
            for ref, columns in each.towards.items() if table == REFERENCES else [("", each.own)]:
                found += list(_rows(one, ref, each, columns))
    return found


def frontiers(measured: Iterable[Measured]) -> dict[str, dict[str, dict[str, Any]]]:
    """alpha_max(beta) of the alpha-beta condition by reference and sample: its corners `beta` and `alpha`, `step` of
    the row on which it rests from each on, and `slope` behind the last; where there is one."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for each in measured:
        steps = [row.step for row in each.sources[0].rows.rows]
        for ref, columns in each.towards.items():
            names = inspect.signature(alpha_beta_frontier).parameters
            if not names.keys() <= columns.keys():
                continue
            if (one := alpha_beta_frontier(**{name: columns[name] for name in names})) is not None:
                found.setdefault(ref, {})[each.sample] = {
                    "beta": one.beta.tolist(),
                    "alpha": one.alpha.tolist(),
                    "step": [steps[row] for row in one.row],
                    "slope": float(one.slope[-1]),
                }
    return found


def _needs(one: Assumption) -> Needed:
    declared = quantities(one.table)
    names = [name for name, spare in one.operands.items() if not spare and name not in CONTEXT]
    return needed_by(one.table, [name if name in declared else name.removesuffix(SE) for name in names])


def _within(what: Needed, have: Needed) -> bool:
    return all(
        getattr(what, part).keys() <= getattr(have, part).keys()
        for part in ("step_products", "reference_products", "evaluations")
    )


def _rows(one: Assumption, ref: str, measured: Measured, columns: Mapping[str, Column]) -> Iterator[LedgerRow]:
    """None where a column that it needs is not of this sample or run."""
    source, sample = measured.sources[0], measured.sample
    rows = source.rows
    given: dict[str, Any] = {
        **columns,
        "weights": rows.pair_weights(sample) if one.table == STEPS else rows.point_weights(sample),
        "point_weights": rows.point_weights(sample),
        "steps": np.array([row.step for row in rows.rows]),
        "sample": sample,
        "one_batch": source.fixed or full_batch(source.trajectory),
    }
    if all(spare or name in given for name, spare in one.operands.items()):
        for parameter, entry in rows_of(one, given).items():
            yield LedgerRow(one, parameter, ref, sample, entry)

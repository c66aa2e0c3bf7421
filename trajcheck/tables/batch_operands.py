"""What several batches of a row have together, as columns take it: probe batches, or the micro-batches of a step."""

from __future__ import annotations

import numpy as np

from trajcheck.inner_products.catalogue import BATCH_PRODUCTS
from trajcheck.metrics.batches import Batches
from trajcheck.metrics.columns import column
from trajcheck.metrics.formulas.tail import STANDING, TOO_FEW, UNEQUAL
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.metrics.tails import FEWEST, Tails
from trajcheck.scalars.micro_batches import no_micro_batches
from trajcheck.scalars.rows import Row
from trajcheck.scalars.values import OF_BATCHES
from trajcheck.tables.operands import Operands, operand
from trajcheck.tables.source import NOT_FINITE, Source

#: Of micro-batches that were recorded and not replayed.
OF_ALL = "recorded for all tensors together: give --objective to have it of each"


def _none(source: Source) -> list[str]:
    """Why a row has no batches; '' where it has some, or is of one sample alone."""
    replayed = [""] * len(source.rows.rows) if source.epsilon is None else source.no_replay
    return [reason or _missing(source, row) for row, reason in zip(source.rows.rows, replayed, strict=True)]


def _missing(source: Source, row: Row) -> str:
    if batches := source.batches.get(row.place, ()):
        of_all = (source.whole or source).batches[row.place]
        return OF_ALL if batches[0].own.grad_sq is None and of_all[0].own.grad_sq is not None else ""
    weights = no_micro_batches(source.trajectory, row.place) if source.sample == "own" else ""
    return weights or source.trajectory.snapshots[row.place].omitted.get("micro_gradients", "")


@operand(STEPS, REFERENCES, needs=("grad_sq", *BATCH_PRODUCTS))
def batches(o: Operands) -> Batches:
    """What each of the batches of a row has."""
    source, products = o.source, ("grad_sq", *BATCH_PRODUCTS)
    rows = [source.batches.get(row.place, ()) for row in source.rows.rows]
    found = {name: np.full((max(map(len, rows)), len(rows)), np.nan) for name in (*products, *OF_BATCHES)}
    missing = [""] * len(rows)
    for at, row in enumerate(source.rows.rows):
        wholes = (source.whole or source).batches.get(row.place, ())  # which know how many examples they have
        for number, (batch, whole) in enumerate(zip(rows[at], wholes, strict=True)):
            for name, values in found.items():
                value = getattr((batch if name in products else whole).own, name)
                values[number, at] = np.nan if value is None else value
                if value is None and name in products:
                    missing[at] = NOT_FINITE
    why = column([0.0] * len(rows), _none(source), missing).reasons
    grad_sq, dot_sum, dot_units, examples, averaged = found.values()
    return Batches(grad_sq, dot_sum, dot_units, examples, averaged, why)


@operand(STEPS, needs=("batches",), evaluations=("tails",))
def tails(o: Operands) -> Tails | None:
    """The sums of logarithms over the batches; None where all rows lack them."""
    source, m = o.source, len(next(iter(o.source.batches.values())))
    if m < FEWEST:
        return None

    def of(name: str) -> np.ndarray:
        rows = [[getattr(batch.own, name) for batch in source.batches[row.place]] for row in source.rows.rows]
        return np.array(rows, dtype=np.float64).T

    return Tails(m, of("tail_coordinates")[0], of("tail_logs"), of("tail_block_logs").sum(axis=0))


@operand(STEPS, needs=("batches", "tails"))
def no_tails(o: Operands) -> np.ndarray:
    """Why nothing is said of tails, row by row."""
    batches: Batches = o["batches"]
    found: Tails | None = o["tails"]
    sizes = np.where(np.isnan(batches.examples), 0.0, batches.examples)
    why = batches.why.astype(object)
    for mask, reason in (
        (batches.count < FEWEST, TOO_FEW),
        (sizes.max(axis=0) != sizes.min(axis=0), UNEQUAL),
        (np.zeros(len(why), bool) if found is None else found.coordinates == 0, STANDING),
    ):
        why = np.where((why == "") & mask, reason, why)
    return why

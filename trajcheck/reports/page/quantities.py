"""The columns that the interactive chart offers, the most telling ones first, with a few words each."""

from __future__ import annotations

from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.quantity import COMPARE, FLOW, REFERENCES, STEPS

QUANTITIES: dict[str, dict[str, str]] = {
    table: {
        each.name: each.words for each in sorted(quantities(table).values(), key=lambda one: one.rank) if each.words
    }
    for table in (REFERENCES, STEPS, COMPARE, FLOW)
}

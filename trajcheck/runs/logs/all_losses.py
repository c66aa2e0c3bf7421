"""Losses of all steps, recorded or not, from a log of them: as arrays, and summed from one record to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trajcheck.runs.logs.run_log import AT_STEP, RunLog


def logged(log: RunLog | None) -> bool:
    """Whether it has f(x_t; z_t) of some steps."""
    return log is not None and log.loss_kind == AT_STEP and bool(log.loss)


def arrays(numbers: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """The steps of which a log says something, in order, and what it says."""
    if (made := getattr(numbers, "arrays", None)) is not None:  # of a file of many steps
        steps, values = made()
        return steps, values
    steps = np.array(sorted(numbers), np.int64)
    return steps, np.array([numbers[int(step)] for step in steps], float)


def sums_between(log: RunLog | None, records: Sequence[int]) -> list[float | None]:
    """Of each record but the first, the sum of f over the steps since the record before, those aside that a loss scaler
    skipped; None where one of these losses is not known."""
    if log is None or not logged(log):
        return [None] * len(records)
    steps, losses = arrays(log.loss)
    places = np.searchsorted(steps, records)
    skipped = np.array(sorted(log.skipped), np.int64)
    left_out = np.isin(steps, skipped)
    before = np.searchsorted(skipped, records)
    found: list[float | None] = [None]
    for k in range(1, len(records)):
        within = slice(places[k - 1], places[k])
        kept = ~left_out[within]
        made = records[k] - records[k - 1] - int(before[k] - before[k - 1])
        found.append(float(losses[within][kept].sum()) if int(kept.sum()) == made else None)
    return found

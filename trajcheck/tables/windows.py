"""Sums over ALL steps of a run, recorded or not, from the window sums that the Recorder kept between records."""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.convexity import window_sum
from trajcheck.runs.snapshot import Window
from trajcheck.scalars.values import ReferenceScalars
from trajcheck.tables.source import Source

LEFT_OUT = "needs every recorded step up to this one as a row; --steps left some out"
NO_LOSS = "the loss of one of its steps was not observed"


def window_step_columns(source: Source) -> dict[str, Column]:
    """All-step sums up to t of the loss and of |g|^2, for steps.csv; nothing for a run without windows."""
    return {
        f"window_{name}": _sum(source, [getattr(window, name, None) for window in _windows(source)])
        for name in (("loss_sum", "grad_sq_sum") if _any(source) else ())
    }


def window_reference_columns(source: Source, towards: Sequence[ReferenceScalars]) -> dict[str, Column]:
    """The numerator of the convexity ratio over all steps up to t, and its skip-self form, for references.csv."""
    if not _any(source):
        return {}
    offsets = [None if window is None else window.grad_dot_offset for window in _windows(source)]
    terms = [
        None if offset is None or each.window_dot_ref is None else offset + each.window_dot_ref
        for offset, each in zip(offsets, towards, strict=True)
    ]
    return {
        "window_num": _sum(source, terms),
        "window_num_skip": _sum(source, [each.window_dot_skip for each in towards]),
    }


def _windows(source: Source) -> list[Window | None]:
    return source.each(lambda row: source.trajectory.snapshots[row.place].window)


def _any(source: Source) -> bool:
    return source.sample == "own" and any(snapshot.window is not None for snapshot in source.trajectory.snapshots)


def _sum(source: Source, terms: Sequence[float | None]) -> Column:
    """The running sum of one term a record, 0 in the run's first; undefined from the first that is missing on."""
    if all(term is None for row, term in zip(source.rows.rows, terms, strict=True) if row.place):
        return column([None] * len(terms), source.each(lambda row: row.no_window if row.place else ""), NO_LOSS)
    places = source.rows.places
    missing = source.each(
        lambda row: "" if row.place == 0 else row.no_window or ("" if row.place - 1 in places else LEFT_OUT)
    )
    unknown = [
        "" if row.place == 0 or term is not None else NO_LOSS for row, term in zip(source.rows.rows, terms, strict=True)
    ]
    values = (0.0 if row.place == 0 else term for row, term in zip(source.rows.rows, terms, strict=True))
    return window_sum(column(values, missing, unknown))
